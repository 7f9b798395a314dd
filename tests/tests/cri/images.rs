//! Images: what kubelet asks on connecting, when there is none yet, and its garbage collection (kubelet
//! `pkg/kubelet/images`).

use husk_cri::api::{CgroupDriver, FilesystemUsage};
use husk_tests::fixture::wait_until;

use super::node::Node;
use super::pod::{IMAGE, Pod};

const OTHER: &str = "docker.io/library/nginx:latest";
const PINNED: &str = "docker.io/husk-test/workdir:latest";

#[test]
fn kubelet_connects_to_an_empty_node_and_collects_its_unused_images() {
    let mut node = Node::with_empty_store();
    let kubelet = node.kubelet.clone();
    let version = kubelet.version().unwrap();
    assert_eq!((version.version.as_str(), version.runtime_api_version.as_str()), ("0.1.0", "v1"));
    let status = kubelet.status();
    for wanted in ["RuntimeReady", "NetworkReady"] {
        let conditions = &status.status.as_ref().unwrap().conditions;
        assert!(conditions.iter().any(|condition| condition.r#type == wanted && condition.status), "{conditions:?}");
    }
    let default = status.runtime_handlers.iter().find(|handler| handler.name.is_empty());
    assert!(default.is_some_and(|handler| handler.features.is_some()), "{status:?}");
    assert_eq!(kubelet.runtime_config().linux.unwrap().cgroup_driver(), CgroupDriver::Cgroupfs);
    assert_eq!((kubelet.pods().len(), kubelet.containers().len(), kubelet.images().len()), (0, 0, 0));
    assert!(kubelet.image(IMAGE).is_none());
    let empty = used(&kubelet.image_fs());

    let ids: Vec<String> = [IMAGE, OTHER, PINNED].iter().map(|image| kubelet.pull(image).unwrap()).collect();
    node.husk().ok(&["image", "pin", PINNED]);
    let full = used(&kubelet.image_fs());
    let images = kubelet.images();
    assert_eq!(images.len(), 3);
    for (name, id) in [IMAGE, OTHER, PINNED].iter().zip(&ids) {
        let image = images.iter().find(|image| image.id == *id).expect("each image by the id of its pull");
        assert_eq!(image.repo_tags, [*name]);
        assert_eq!(image.repo_digests.len(), 1, "{image:?}");
        assert!(image.size > 0 && (image.uid.is_some() || !image.username.is_empty()), "{image:?}");
        assert_eq!(image.pinned, *name == PINNED);
        assert_eq!(kubelet.image(id).as_ref(), Some(image));
    }
    let sizes: u64 = images.iter().map(|image| image.size).sum();
    assert!(full > empty && full - empty <= 2 * sizes, "{sizes} bytes of images take {full} after {empty}");

    // What a collector sees of containers keeps it from their images; the runtime is careful all the same.
    let pod = Pod::prepare(&node, "images");
    let sandbox = pod.run();
    let main = pod.start(&sandbox, &pod.container("main", 0, "sleep 100000"));
    let in_use = kubelet.containers()[0].clone();
    assert_eq!(in_use.image_id, ids[0], "the collector knows used images by their ids");
    assert_eq!(kubelet.container(&main).unwrap().image_id, ids[0]);
    kubelet.remove_image(&ids[1]).unwrap();
    kubelet.remove_image(&ids[1]).unwrap();
    kubelet.remove_image(IMAGE).unwrap();
    assert!(kubelet.image(OTHER).is_none() && kubelet.image(IMAGE).is_none());
    assert_eq!(kubelet.images().iter().map(|image| &image.id).collect::<Vec<_>>(), [&ids[2]]);
    wait_until("room for new images", 20, || used(&kubelet.image_fs()) < full);
    assert_eq!(kubelet.sh(&main, "cat /bin/busybox | wc -c | grep -c ."), "1");

    // Nor does a restart take a running container's files.
    node.restart();
    assert_eq!(kubelet.sh(&main, "echo 3 >/proc/sys/vm/drop_caches 2>/dev/null; busybox true; echo fine"), "fine");
    pod.collect(&sandbox);
    assert_eq!(kubelet.pull(IMAGE).unwrap(), ids[0]);
}

fn used(usage: &FilesystemUsage) -> u64 {
    usage.used_bytes.as_ref().expect("used bytes").value
}
