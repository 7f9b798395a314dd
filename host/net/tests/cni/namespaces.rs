//! Named network namespaces.

use std::net::{TcpListener, TcpStream};
use std::path::Path;

use husk_net::{NetNs, NetNsError, RUN_NETNS};

use crate::world::{in_a_world_of_its_own, interfaces, ip, netns, remove};

#[test]
fn a_namespace_is_fresh_has_a_loopback_and_goes_with_its_name() {
    in_a_world_of_its_own(|| async {
        ip("link add outside type bridge");
        let pod = netns("pod-a").await;
        assert_eq!(pod.path(), Path::new("/run/netns/pod-a"));
        let inside = pod
            .run(|| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                interfaces()
            })
            .await
            .unwrap();
        // Some kernels add tunnels of their own to every namespace.
        assert!(inside.contains(&"lo".to_owned()) && !inside.contains(&"outside".to_owned()), "{inside:?}");
        assert!(interfaces().contains(&"outside".to_owned()), "the caller stays where it was");
        assert_eq!(NetNs::open(pod.path()).unwrap().run(interfaces).await.unwrap(), inside);
        remove(&pod);
        let error = NetNs::open(pod.path()).unwrap_err();
        assert_eq!(error.to_string(), "there is no network namespace /run/netns/pod-a");
        ip("link del outside");
    });
}

#[test]
fn a_name_is_taken_once_and_is_no_path() {
    in_a_world_of_its_own(|| async {
        let pod = netns("pod-a").await;
        let error = NetNs::create(Path::new(RUN_NETNS), "pod-a").await.unwrap_err();
        assert!(matches!(error, NetNsError::AlreadyExists { .. }), "{error}");
        remove(&pod);
        for name in ["", ".", "..", "a/b", "../a", "a b"] {
            let error = NetNs::create(Path::new(RUN_NETNS), name).await.unwrap_err();
            assert!(matches!(error, NetNsError::BadName { .. }), "{error}");
        }
    });
}

#[test]
fn what_a_reboot_leaves_is_no_namespace_and_can_be_removed() {
    in_a_world_of_its_own(|| async {
        std::fs::create_dir(RUN_NETNS).unwrap();
        let path = Path::new(RUN_NETNS).join("pod-a");
        std::fs::write(&path, "").unwrap();
        assert!(matches!(NetNs::open(&path).unwrap_err(), NetNsError::Missing { .. }));
        NetNs::remove(&path).unwrap();
        assert!(!path.exists());
    });
}

#[test]
fn a_panic_inside_is_an_error_outside() {
    in_a_world_of_its_own(|| async {
        let pod = netns("pod-a").await;
        let error = pod.run(|| assert!(interfaces().is_empty(), "on purpose")).await.unwrap_err();
        assert!(matches!(error, NetNsError::Panicked { .. }), "{error}");
        assert!(pod.run(interfaces).await.is_ok());
        remove(&pod);
    });
}
