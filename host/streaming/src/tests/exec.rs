use std::sync::atomic::Ordering;
use std::time::Duration;

use super::spdy_client::Client;
use super::{With, pattern, served};

const V4: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "channel.k8s.io"];

#[tokio::test]
async fn what_goes_in_comes_out_of_cat_whole() {
    let served = served().await;
    let mut client = Client::connect(&served.exec("cat", With { stdin: true, tty: false }), V4).await;
    assert!(client.head.contains("x-stream-protocol-version: v4.channel.k8s.io\r\n"), "{}", client.head);
    assert!(client.head.contains("upgrade: spdy/3.1\r\n"));
    let [error, stdin, stdout, stderr] = client.open_all(["error", "stdin", "stdout", "stderr"]).await;
    let bytes = pattern(5_000_001);
    client.send(stdin, &bytes).await;
    client.finish(stdin).await;
    client.until_closed().await;
    assert!(client.streams[&stdout].bytes == bytes);
    assert_eq!(client.text(stderr), "");
    assert_eq!(client.text(error), r#"{"status":"Success"}"#);
    for id in [error, stdin, stdout, stderr] {
        assert!(client.streams[&id].ended, "{id}");
    }
    assert_eq!(client.goaway, Some(0));
}

#[tokio::test]
async fn stdout_and_stderr_are_apart_and_the_exit_code_is_told() {
    let served = served().await;
    let mut client = Client::connect(&served.exec("seven", With::default()), V4).await;
    let [error, stdout, stderr] = client.open_all(["error", "stdout", "stderr"]).await;
    client.until_closed().await;
    assert_eq!((client.text(stdout), client.text(stderr)), ("out", "err"));
    assert!(client.text(error).contains(r#""causes":[{"reason":"ExitCode","message":"7"}]"#));
}

#[tokio::test]
async fn a_command_that_cannot_run_is_an_internal_error() {
    let served = served().await;
    let mut client = Client::connect(&served.exec("nonsense", With::default()), V4).await;
    let [error, _, _] = client.open_all(["error", "stdout", "stderr"]).await;
    client.until_closed().await;
    assert!(client.text(error).contains(r#""message":"Internal error occurred: no nonsense here","code":500"#));
}

#[tokio::test]
async fn clients_that_name_no_version_or_an_old_one_get_text() {
    let served = served().await;
    for protocols in [&[][..], &["v3.channel.k8s.io"], &["channel.k8s.io"]] {
        let mut client = Client::connect(&served.exec("seven", With::default()), protocols).await;
        assert_eq!(client.head.contains("x-stream-protocol-version"), !protocols.is_empty());
        let [error, _, _] = client.open_all(["error", "stdout", "stderr"]).await;
        client.until_closed().await;
        assert_eq!(client.text(error), "command terminated with non-zero exit code: 7");
    }
}

#[tokio::test]
async fn a_terminal_has_sizes_and_no_stderr() {
    let served = served().await;
    let mut client = Client::connect(&served.exec("sizes", With { tty: true, stdin: false }), V4).await;
    let [_, stdout, resize] = client.open_all(["error", "stdout", "resize"]).await;
    client.send(resize, br#"{"Width":80,"Height":24}{"Width":13"#).await;
    client.send(resize, br#"2,"Height":43}"#).await;
    client.until_closed().await;
    assert_eq!(client.text(stdout), "80x24 132x43 ");
}

#[tokio::test]
async fn a_stream_can_end_before_the_process() {
    let served = served().await;
    let mut client = Client::connect(&served.exec("close-stdout", With::default()), V4).await;
    let [error, stdout, stderr] = client.open_all(["error", "stdout", "stderr"]).await;
    client.until_closed().await;
    assert!(client.streams[&stdout].ended);
    assert_eq!((client.text(stderr), client.text(error)), ("err", r#"{"status":"Success"}"#));
}

#[tokio::test]
async fn a_process_that_floods_waits_for_its_client() {
    let served = served().await;
    let mut client = Client::connect(&served.exec("flood", With::default()), V4).await;
    let [_, stdout, _] = client.open_all(["error", "stdout", "stderr"]).await;
    client.read(false);
    let flooded = || served.seen.flooded.load(Ordering::SeqCst);
    let mut before = usize::MAX;
    while before != flooded() {
        before = flooded();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // Both ends' socket buffers, a few MiB each on the loopback interface, and half a MiB here.
    assert!(before < 64 * 1024 * 1024, "{before}");
    client.read(true);
    client.until(|client| client.streams[&stdout].bytes.len() > before).await;
    assert!(flooded() > before);
}

#[tokio::test]
async fn pings_are_answered_with_their_ids() {
    let served = served().await;
    let mut client = Client::connect(&served.exec("sleep", With::default()), V4).await;
    client.ping(1).await;
    client.ping(2).await;
    client.ping(3).await;
    client.until(|client| client.pongs.len() == 2).await;
    assert_eq!(client.pongs, [1, 3]);
}

#[tokio::test]
async fn attach_ends_with_the_process() {
    let served = served().await;
    let mut client = Client::connect(&served.attach(), V4).await;
    let [error, stdin, stdout] = client.open_all(["error", "stdin", "stdout"]).await;
    client.send(stdin, b"exit").await;
    client.finish(stdin).await;
    client.until_closed().await;
    assert_eq!(client.text(stdout), "attached");
    assert!(client.text(error).contains(r#""message":"3""#));
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let served = served().await;
    for url in [served.attach(), served.exec("sleep", With { stdin: true, tty: false })] {
        served.seen.left.store(false, Ordering::SeqCst);
        let mut client = Client::connect(&url, V4).await;
        client.open_all(["error", "stdin", "stdout", "stderr"]).await;
        drop(client);
        while !served.seen.left.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
