//! Pods that grow and shrink, with guests that do what they like.

use std::sync::Arc;

use husk_pod::{ErrorKind, Pod, ResizeError, VmSize};
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use crate::fixture::{Fixture, LONG, SHORT};

const MIB: u64 = 1 << 20;

fn resources(value: Value) -> LinuxResources {
    serde_json::from_value(value).unwrap()
}

/// Gives the containers so much memory.
async fn memory(pod: &Arc<Pod>, mib: u64) -> Result<VmSize, ResizeError> {
    let wanted = resources(json!({"memory": {"limit": mib * MIB}}));
    tokio::time::timeout(LONG, pod.resize(&wanted)).await.unwrap()
}

/// Starts a pod of 640 MiB, 512 of them its containers'.
async fn pod(behaviour: &str) -> (Fixture, Arc<Pod>) {
    let mut fixture = Fixture::new(behaviour);
    fixture.deadlines.memory = SHORT / 4;
    let pod = fixture.running().await;
    assert_eq!(pod.info().size.memory_mib, 640);
    (fixture, pod)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_grows_and_shrinks_again_but_not_below_its_boot() {
    let (_fixture, pod) = pod("").await;
    assert_eq!(memory(&pod, 1024).await.unwrap().memory_mib, 1024 + 128);
    assert_eq!(pod.info().size.memory_mib, 1152);
    assert_eq!(memory(&pod, 700).await.unwrap().memory_mib, 828);
    // Blocks are whole.
    assert_eq!(memory(&pod, 701).await.unwrap().memory_mib, 830);
    assert_eq!(memory(&pod, 64).await.unwrap().memory_mib, 640);
    assert_eq!(pod.vmm_status().await.unwrap().hotplug.unwrap().requested_mib, 0);
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cpus_come_and_go_with_the_limit() {
    let (_fixture, pod) = pod("").await;
    let most = pod.info().most.vcpus;
    let cpu = |quota: i64| resources(json!({"cpu": {"quota": quota, "period": 100_000}}));
    assert_eq!(pod.resize(&cpu(i64::from(most) * 100_000)).await.unwrap().vcpus, most);
    assert_eq!(pod.resize(&cpu(50_000)).await.unwrap().vcpus, 1);
    assert_eq!(pod.resize(&cpu(-1)).await.unwrap().vcpus, most.min(2));
    let error = pod.resize(&cpu(i64::from(most) * 100_000 + 1)).await.unwrap_err();
    assert!(matches!(error, ResizeError::Vcpus { wanted, most: has } if wanted == most + 1 && has == most), "{error}");
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_has_not_is_refused_with_both_numbers() {
    let (_fixture, pod) = pod("").await;
    let most = pod.info().most.memory_mib;
    let error = memory(&pod, most + 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    // A 65th of a large VM is its kernel's page structures.
    let structures = (most + 1).saturating_sub(2048).div_ceil(64);
    for number in [most + 1 + structures + 128, most] {
        assert!(error.to_string().contains(&format!("{number} MiB")), "{error}");
    }
    assert_eq!(memory(&pod, 2 << 20).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(pod.vmm_status().await.unwrap().hotplug.unwrap().requested_mib, 0);
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_in_use_is_not_taken_away() {
    let (_fixture, pod) = pod("uses-much").await;
    let error = memory(&pod, 299).await.unwrap_err().to_string();
    assert!(error.contains(&(300 * MIB).to_string()) && error.contains(&(299 * MIB).to_string()), "{error}");
    memory(&pod, 300).await.unwrap();
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_take_all_keeps_what_it_had() {
    let (_fixture, pod) = pod("plug-little").await;
    let error = memory(&pod, 1024).await.unwrap_err();
    assert!(matches!(error, ResizeError::NotPlugged { wanted: 512, taken: 64 }), "{error}");
    assert_eq!(pod.info().size.memory_mib, 640);
    assert_eq!(pod.vmm_status().await.unwrap().hotplug.unwrap().requested_mib, 0);
    memory(&pod, 512 + 64).await.unwrap();
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_cannot_free_all_keeps_the_rest_and_no_more() {
    let (_fixture, pod) = pod("keep-memory").await;
    memory(&pod, 1024).await.unwrap();
    assert_eq!(memory(&pod, 512).await.unwrap().memory_mib, 640 + 128);
    assert_eq!(pod.info().size.memory_mib, 768);
    assert_eq!(pod.vmm_status().await.unwrap().hotplug.unwrap().requested_mib, 128);
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_never_settles_is_not_waited_for_for_ever() {
    let (_fixture, pod) = pod("never-settle").await;
    let error = memory(&pod, 1024).await.unwrap_err();
    assert!(matches!(error, ResizeError::NotPlugged { wanted: 512, .. }), "{error}");
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_the_guest_refuses_take_the_growth_back() {
    let (_fixture, pod) = pod("refuse=update").await;
    memory(&pod, 1024).await.unwrap_err();
    assert_eq!(pod.info().size.memory_mib, 640);
    assert_eq!(pod.vmm_status().await.unwrap().hotplug.unwrap().requested_mib, 0);
    pod.stop(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_dies_while_it_is_resized_says_so() {
    let (fixture, pod) = pod("die=request-memory").await;
    assert_eq!(memory(&pod, 1024).await.unwrap_err().kind(), ErrorKind::Unavailable);
    pod.stop(LONG).await;
    fixture.assert_nothing_is_left(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_come_one_after_another() {
    let (_fixture, pod) = pod("").await;
    let (first, second) = tokio::join!(memory(&pod, 1024), memory(&pod, 768));
    assert!(first.unwrap().memory_mib == 1152 && second.unwrap().memory_mib == 896);
    pod.stop(LONG).await;
}
