//! ImageService as kubelet, crictl and critest want it, asked over its socket.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::common::{Node, image, image_with, spec};
use husk_cri::api::image_service_server::ImageService as _;
use husk_cri::api::{
    Image, ImageFilter, ImageFsInfoRequest, ImageSpec, ImageStatusRequest, Int64Value, ListImagesRequest,
    PullImageRequest, StreamImagesRequest,
};
use serde_json::{Value, json};

const APP: &str = "docker.io/library/app";

fn du(path: &Path, what: &str) -> u64 {
    let output = Command::new("du").args(["-s", what]).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// Asked until nothing changes any more: what was removed may still be going.
async fn assert_usage_is_what_du_says(node: &Node) {
    node.idle().await;
    let info = node.client.clone().image_fs_info(ImageFsInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.image_filesystems, info.container_filesystems);
    let [usage] = info.image_filesystems.as_slice() else { panic!("{info:?}") };
    let place = usage.fs_id.clone().unwrap().mountpoint;
    assert!(Path::new(&place).is_dir() && usage.timestamp > 0);
    assert_eq!(usage.used_bytes.unwrap().value, du(Path::new(&place), "--block-size=1"));
    assert_eq!(usage.inodes_used.unwrap().value, du(Path::new(&place), "--inodes"));
}

#[tokio::test]
async fn before_the_first_pull_everything_answers() {
    let node = Node::start().await;
    assert_usage_is_what_du_says(&node).await;
    assert!(node.list().await.is_empty());
    let id = format!("sha256:{}", "ab".repeat(32));
    for name in ["app", "a/b:c", &id, &id[7..], &format!("app@{id}"), "Not a name"] {
        assert_eq!(node.status(name).await, None, "{name}");
        node.remove(name).await.unwrap();
    }
}

#[tokio::test]
async fn an_image_pulled_by_tag_has_its_canonical_name_and_its_digest() {
    let node = Node::start().await;
    let test = image("a");
    let digest = node.registry.push("library/app:latest", &test);
    let id = node.pull("app").await.unwrap();
    assert_eq!(id, test.id());
    let image = node.status("app").await.unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.repo_tags, [format!("{APP}:latest")]);
    assert_eq!(image.repo_digests, [format!("{APP}@{digest}")]);
    assert!(image.size > 200_000 && !image.pinned);
    // Every way to say it means it.
    for name in [
        "app:latest",
        "library/app",
        APP,
        &format!("index.{APP}:latest"),
        &format!("app@{digest}"),
        &format!("app:latest@{digest}"),
        &format!("app:another@{digest}"),
        &id,
        &id[7..],
        &id[7..20],
    ] {
        assert_eq!(node.status(name).await.as_ref(), Some(&image), "{name}");
    }
    for name in ["app:other", "other", &format!("other@{digest}"), &format!("app@{id}")] {
        assert_eq!(node.status(name).await, None, "{name}");
    }
    // An image volume is asked for by the id that it had.
    let by_ref = ImageSpec { image_ref: id.clone(), ..ImageSpec::default() };
    let request = ImageStatusRequest { image: Some(by_ref), verbose: false };
    assert_eq!(node.client.clone().image_status(request).await.unwrap().into_inner().image, Some(image.clone()));
    assert_eq!(node.list().await, [image]);
    assert_usage_is_what_du_says(&node).await;
}

#[tokio::test]
async fn an_image_pulled_by_digest_has_that_name_alone() {
    for form in ["app@", "app:1@"] {
        let node = Node::start().await;
        let digest = node.registry.push("library/app:1", &image("a"));
        let id = node.pull(&format!("{form}{digest}")).await.unwrap();
        let image = node.status(&id).await.unwrap();
        assert!(image.repo_tags.is_empty(), "{image:?}");
        assert_eq!(image.repo_digests, [format!("{APP}@{digest}")]);
        // The tag comes with its own pull, and the digest stays one.
        node.pull("app:1").await.unwrap();
        let image = node.status(&id).await.unwrap();
        assert_eq!((image.repo_tags, image.repo_digests.len()), (vec![format!("{APP}:1")], 1));
    }
}

#[tokio::test]
async fn an_image_for_several_machines_has_the_digest_of_its_index() {
    let node = Node::start().await;
    let index = node.registry.push_index("library/app:latest", &image("a"));
    let id = node.pull("app").await.unwrap();
    let by_index = format!("{APP}@{index}");
    assert_eq!(node.status(&id).await.unwrap().repo_digests, [by_index.as_str()]);
    assert_eq!(node.status(&by_index).await.unwrap().id, id);
    node.remove(&by_index).await.unwrap();
    assert!(node.list().await.is_empty());
    assert_eq!(node.pull(&by_index).await.unwrap(), id);
    let image = node.status(&by_index).await.unwrap();
    assert_eq!((image.repo_tags, image.repo_digests), (vec![], vec![by_index]));
}

#[tokio::test]
async fn tags_of_one_image_are_one_image() {
    let node = Node::start().await;
    let test = image("a");
    for name in ["library/app:1", "library/app:2", "team/other:1"] {
        node.registry.push(name, &test);
    }
    for name in ["app:2", "team/other:1", "app:1"] {
        node.pull(name).await.unwrap();
    }
    let images = node.list().await;
    let [image] = images.as_slice() else { panic!("{images:?}") };
    assert_eq!(image.repo_tags, [format!("{APP}:1"), format!("{APP}:2"), "docker.io/team/other:1".to_owned()]);
    assert_eq!(image.repo_digests.len(), 2);
}

#[tokio::test]
async fn who_runs_is_said_by_number_or_by_name() {
    let node = Node::start().await;
    for (user, uid, username) in [
        (None, Some(0), ""),
        (Some("1002"), Some(1002), ""),
        (Some("www-data"), None, "www-data"),
        (Some("1003:1004"), Some(1003), ""),
        (Some("www-data:1004"), None, "www-data"),
    ] {
        node.registry.push("library/app:latest", &image_with("a", &json!({"User": user})));
        let id = node.pull("app").await.unwrap();
        let image = node.status(&id).await.unwrap();
        assert_eq!((image.uid, image.username.as_str()), (uid.map(|value| Int64Value { value }), username));
    }
}

#[tokio::test]
async fn whatever_an_image_is_called_by_all_its_names_are_removed() {
    let node = Node::start().await;
    let test = image("a");
    let digest = node.registry.push("library/app:1", &test);
    node.registry.push("team/other:2", &test);
    for name in ["app:1", "team/other:2", &test.id(), &test.id()[7..], &format!("app@{digest}"), "app:7"] {
        node.pull("app:1").await.unwrap();
        node.pull("team/other:2").await.unwrap();
        node.remove(name).await.unwrap();
        let left = if name == "app:7" { 1 } else { 0 };
        assert_eq!(node.list().await.len(), left, "{name}");
        node.remove(name).await.unwrap();
    }
    node.remove("app:1").await.unwrap();
    assert!(node.status(&test.id()).await.is_none());
    assert_usage_is_what_du_says(&node).await;
    assert_eq!(std::fs::read_dir(node.config.images().join("layers")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_remove_and_pull_the_same_images_at_a_time() {
    let node = Node::start().await;
    for n in 0..4 {
        node.registry.push(&format!("library/app:{n}"), &image(&n.to_string()));
        node.pull(&format!("app:{n}")).await.unwrap();
    }
    let all = (0..16).map(|n| {
        let node = &node;
        async move {
            node.remove(&format!("app:{}", n % 4)).await.unwrap();
            node.list().await;
        }
    });
    futures::future::join_all(all).await;
    assert!(node.list().await.is_empty());
    assert_usage_is_what_du_says(&node).await;
}

#[tokio::test]
async fn an_image_in_use_loses_its_names_at_once_and_goes_with_its_last_user() {
    let node = Node::start().await;
    node.registry.push("library/app:latest", &image("a"));
    let id = node.pull("app").await.unwrap();
    let store = node.store();
    let lease = store.get("app").unwrap().lease().unwrap();
    node.remove("app").await.unwrap();
    assert!(node.list().await.is_empty());
    for name in ["app", &id, &id[7..20]] {
        assert_eq!(node.status(name).await, None, "{name}");
    }
    // Who runs from it goes on, even anew.
    let running = store.running(&id).unwrap();
    assert!(running.erofs_path.exists() && running.names.is_empty());
    assert!(store.sweep().unwrap().is_empty());
    // It is wanted again before it has gone.
    assert_eq!(node.pull("app").await.unwrap(), id);
    assert_eq!(node.list().await.len(), 1);
    node.remove(&id).await.unwrap();
    drop(lease);
    let gone: Vec<String> = store.sweep().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(gone, [id]);
    assert!(!running.erofs_path.exists());
    assert_eq!(std::fs::read_dir(node.config.images().join("layers")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_image_that_lost_a_file_is_not_there_until_it_is_pulled_again() {
    let node = Node::start().await;
    node.registry.push("library/app:latest", &image("a"));
    let id = node.pull("app").await.unwrap();
    let data = node.store().get("app").unwrap().data_paths.remove(0);
    std::fs::remove_file(data).unwrap();
    // huskd saw it whole; one that starts now does not.
    let fresh = husk_cri::images::ImageServer::new(node.store(), &node.config);
    let request = ImageStatusRequest { image: spec("app"), verbose: false };
    assert_eq!(fresh.image_status(tonic::Request::new(request)).await.unwrap().into_inner().image, None);
    assert_eq!(node.pull("app").await.unwrap(), id);
    node.store().get("app").unwrap();
}

#[tokio::test]
async fn what_others_do_to_the_store_is_seen_at_once() {
    let node = Node::start().await;
    node.registry.push("library/app:latest", &image("a"));
    let id = node.pull("app").await.unwrap();
    assert_eq!(node.list().await.len(), 1);
    let store = node.store();
    let own = store.get("app").unwrap().id;
    store.tag(&own, &"mine:1".parse().unwrap()).unwrap();
    store.pin(&own, true).unwrap();
    let image = node.status(&id).await.unwrap();
    assert!(image.pinned && image.repo_tags.contains(&"docker.io/library/mine:1".to_owned()));
    store.pin(&own, false).unwrap();
    assert!(!node.list().await[0].pinned);
    store.remove(&id, true).unwrap();
    assert!(node.list().await.is_empty());
}

#[tokio::test]
async fn on_demand_the_images_config_is_told_and_its_annotations_always() {
    let node = Node::start().await;
    let mut test = image_with("a", &json!({"Env": ["A=b"], "StopSignal": "SIGINT"}));
    let mut manifest: Value = serde_json::from_slice(&test.manifest).unwrap();
    manifest["annotations"] = json!({"org.example.a": "b"});
    test.manifest = manifest.to_string().into_bytes();
    node.registry.push("library/app:latest", &test);
    node.pull("app").await.unwrap();
    let request = ImageStatusRequest { image: spec("app"), verbose: true };
    let status = node.client.clone().image_status(request).await.unwrap().into_inner();
    let info: Value = serde_json::from_str(&status.info["info"]).unwrap();
    assert_eq!(info["imageSpec"]["config"], json!({"Env": ["A=b"], "StopSignal": "SIGINT"}));
    assert_eq!(status.image.unwrap().spec.unwrap().annotations["org.example.a"], "b");
}

#[tokio::test]
async fn only_handlers_that_exist_pull() {
    let node = Node::start().await;
    node.registry.push("library/app:latest", &image("a"));
    for (handler, known) in [("", true), ("husk", true), ("other", false)] {
        let image = ImageSpec { runtime_handler: handler.to_owned(), ..spec("app").unwrap() };
        let request = PullImageRequest { image: Some(image), ..PullImageRequest::default() };
        let pulled = node.client.clone().pull_image(request).await;
        assert_eq!(pulled.is_ok(), known, "{handler}");
        if let Err(status) = pulled {
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
        }
    }
}

/// More images than are told in one message, each a copy of one.
fn multiply(node: &Node, image: &str, count: usize) {
    let images = node.config.images();
    let one = images.join(image.strip_prefix("sha256:").unwrap());
    for number in 0..count {
        let copy = images.join(format!("{number:064x}"));
        std::fs::create_dir(&copy).unwrap();
        for file in std::fs::read_dir(&one).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
    }
}

#[tokio::test]
async fn a_list_has_each_image_once_streamed_or_not_and_a_filter_has_one() {
    let node = Node::start().await;
    node.registry.push("library/app:7", &image("a"));
    let id = node.pull("app:7").await.unwrap();
    multiply(&node, &id, 209);
    let count = 210;
    let listed = node.list().await;
    let mut stream = node.client.clone().stream_images(StreamImagesRequest::default()).await.unwrap().into_inner();
    let mut streamed: Vec<Image> = Vec::new();
    let mut messages = 0;
    while let Some(message) = stream.message().await.unwrap() {
        assert!(!message.images.is_empty());
        streamed.extend(message.images);
        messages += 1;
    }
    assert_eq!((streamed.len(), messages), (count, 3));
    assert_eq!(streamed, listed);
    assert_eq!(streamed.iter().map(|image| &image.id).collect::<BTreeSet<_>>().len(), count);
    for (name, found) in [("app:7", 1), ("app", 0), (listed[3].id.as_str(), 1), ("", count)] {
        let filter = Some(ImageFilter { image: spec(name) });
        let images = node.client.clone().list_images(ListImagesRequest { filter }).await.unwrap().into_inner().images;
        assert_eq!(images.len(), found, "{name}");
    }
}
