use std::os::unix::net::UnixStream;

use super::*;

fn config(dir: &Path) -> Config {
    Config {
        root: dir.join("root"),
        run: dir.join("run"),
        socket: dir.join("run/cri.sock"),
        registry_config_dir: dir.join("certs.d"),
        ..Config::default()
    }
}

#[tokio::test]
async fn a_second_daemon_of_the_same_directory_is_refused_and_says_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = Daemon::open(config(dir.path())).unwrap();
    let other_socket = Config { socket: dir.path().join("other.sock"), ..config(dir.path()) };
    let error = Daemon::open(other_socket.clone()).unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(first);
    Daemon::open(other_socket).unwrap();
}

#[tokio::test]
async fn a_socket_of_another_program_is_not_taken_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    std::fs::create_dir_all(&config.run).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&config.socket).unwrap();
    let error = Daemon::open(config).unwrap_err().to_string();
    assert!(error.contains("cri.sock") && error.contains("somebody listens"), "{error}");
}

#[tokio::test]
async fn it_ends_when_told_and_leaves_no_socket() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let daemon = Daemon::open(config.clone()).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(daemon.serve(async move {
        let _ = stopped.await;
    }));
    UnixStream::connect(&config.socket).unwrap();
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    assert!(!config.socket.exists());
    Daemon::open(config).unwrap();
}
