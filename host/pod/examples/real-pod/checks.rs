//! The checks, each in a pod of its own.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use husk_pod::StdioWanted;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pod::{Bench, NONE, OUTPUT, Outcome, exec, feed, keep, process, read_all, run, shell, spec};

type Check = fn(Bench) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn all() -> Vec<(&'static str, Check)> {
            vec![$((stringify!($name), |bench| Box::pin($name(bench)))),*]
        }
    };
}

checks![
    a_pod_boots_and_stops,
    a_container_prints_and_exits,
    the_root_is_writable_and_private,
    containers_share_what_a_pod_shares,
    limits_are_set_in_the_guest,
    a_memory_hog_is_killed_and_said_so,
    stdin_reaches_the_process_and_ends,
    many_bytes_arrive_unchanged,
    a_terminal_has_a_size,
    exec_runs_beside_the_init,
    signals_end_processes,
    volumes_are_shared_and_survive_containers,
    a_disk_keeps_its_content_between_pods,
    trees_of_the_host_are_shared,
    a_socket_of_the_host_is_reached,
    a_block_device_of_the_host_is_given,
    a_volume_has_a_limit,
    deleted_space_goes_back_to_the_host,
    process_namespaces_can_be_shared,
    a_missing_program_is_an_error,
    devices_come_and_go_a_hundred_times,
    a_killed_vmm_is_noticed,
];

fn ensure(condition: bool, what: impl Into<String>) -> Outcome {
    if condition { Ok(()) } else { Err(what.into().into()) }
}

async fn a_pod_boots_and_stops(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    let info = pod.info();
    println!("        {:?}", info.timeline);
    println!(
        "        kernel {} {} MiB {} vCPUs {:?}",
        info.kernel_release, info.size.memory_mib, info.size.vcpus, info.slots
    );
    println!("        {:?}", pod.vmm_status().await?);
    let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", pod.vmm_pid()))?;
    ensure(cgroup.contains("/husk/real-pod-"), format!("the VMM lives in {cgroup}"))
}

async fn a_container_prints_and_exits(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    let ran = run(&bench, &pod, "c", shell("echo out; echo err >&2; hostname; cat /etc/hosts; exit 7")).await?;
    ensure(ran.exit.code == 7 && ran.stderr == "err\n", format!("{ran:?}"))?;
    ensure(ran.stdout.starts_with("out\nreal-pod\n") && ran.stdout.contains("localhost"), format!("{ran:?}"))
}

async fn the_root_is_writable_and_private(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    let first = run(&bench, &pod, "a", shell("echo changed > /etc/marker && cat /etc/marker && df /")).await?;
    ensure(first.exit.code == 0 && first.stdout.starts_with("changed"), format!("{first:?}"))?;
    let second = run(&bench, &pod, "b", shell("cat /etc/marker")).await?;
    ensure(second.stdout == "original\n", format!("{second:?}"))?;
    let mut members = shell("echo x > /etc/marker");
    members["root"] = json!({"path": "rootfs", "readonly": true});
    let read_only = run(&bench, &pod, "c", members).await?;
    ensure(read_only.exit.code != 0 && read_only.stderr.contains("Read-only"), format!("{read_only:?}"))
}

async fn containers_share_what_a_pod_shares(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    keep(&bench, &pod, "a", shell("echo hello > /dev/shm/note; while true; do echo served | nc -l -p 8080; done"))
        .await?;
    keep(&bench, &pod, "b", shell("sleep 1000")).await?;
    let script = "for n in net uts ipc mnt pid cgroup; do readlink /proc/self/ns/$n; done; ps | wc -l";
    let a = exec(&pod, "a", "e", script).await?.stdout;
    let b = exec(&pod, "b", "e", script).await?.stdout;
    println!("        {} | {}", a.replace('\n', " "), b.replace('\n', " "));
    let same: Vec<bool> = a.lines().zip(b.lines()).map(|(a, b)| a == b).take(6).collect();
    ensure(same == [true, true, true, false, false, false], format!("{a} {b}"))?;
    let fetched = exec(
        &pod,
        "b",
        "f",
        "for i in 1 2 3 4 5 6 7 8 9; do nc localhost 8080 </dev/null && break; sleep 1; done; cat /dev/shm/note",
    )
    .await?;
    ensure(fetched.stdout == "served\nhello\n", format!("{fetched:?}"))
}

async fn limits_are_set_in_the_guest(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    let script = "cd /sys/fs/cgroup; cat memory.max cpu.max cpu.weight pids.max; ulimit -n; \
                  grep -E 'CapEff|NoNewPrivs' /proc/self/status; cat /proc/self/oom_score_adj; touch /proc/sys/x; id -u; id -G";
    let mut members = shell(script);
    members["linux"] = json!({"resources": {
        "memory": {"limit": 134_217_728}, "cpu": {"quota": 50_000, "period": 100_000, "shares": 1024}, "pids": {"limit": 50},
    }});
    members["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}]);
    members["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [2000]});
    members["process"]["oomScoreAdj"] = json!(500);
    let ran = run(&bench, &pod, "c", members).await?;
    println!("        {}", ran.stdout.replace('\n', " "));
    let expected = ["134217728", "50000 100000", "100", "50", "77"];
    ensure(ran.stdout.lines().take(5).eq(expected), format!("{ran:?}"))?;
    ensure(ran.stdout.contains("NoNewPrivs:\t1") && ran.stdout.contains("\n500\n1000\n1000 2000"), format!("{ran:?}"))
}

async fn a_memory_hog_is_killed_and_said_so(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    let mut members = shell("head -c 200m /dev/zero | tail");
    members["process"]["args"] = json!(["tail", "/dev/zero"]);
    members["linux"] = json!({"resources": {"memory": {"limit": 33_554_432, "swap": 33_554_432}}});
    let (_, streams) = pod.create_container("hog", &spec(members), &bench.rootfs(), OUTPUT).await?;
    pod.start_container("hog").await?;
    read_all(streams).await?;
    let exit = pod.wait("hog", None).await?;
    ensure(exit.code == 137 && exit.oom_killed, format!("{exit:?}"))?;
    let stats = pod.stats(Some("hog")).await?;
    ensure(stats.memory_oom_kill > 0, format!("{stats:?}"))?;
    Ok(pod.remove_container("hog").await?)
}

async fn stdin_reaches_the_process_and_ends(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    let wanted = StdioWanted { stdin: true, stdout: true, stderr: false, terminal: false };
    let (_, mut streams) = pod.create_container("c", &spec(shell("cat; echo end")), &bench.rootfs(), wanted).await?;
    let stdin = streams.stdin.take().ok_or("no stdin")?;
    pod.start_container("c").await?;
    let (fed, read) = tokio::join!(feed(stdin, b"hi\n".to_vec()), read_all(streams));
    fed?;
    ensure(read?.0 == "hi\nend\n", "other output")?;
    ensure(pod.wait("c", None).await?.code == 0, "exit code")
}

async fn many_bytes_arrive_unchanged(bench: Bench) -> Outcome {
    const BYTES: usize = 16 << 20;
    let pod = bench.start(json!({})).await?;
    let wanted = StdioWanted { stdin: true, stdout: true, stderr: false, terminal: false };
    let (_, mut streams) = pod.create_container("c", &spec(shell("exec cat")), &bench.rootfs(), wanted).await?;
    let (stdin, mut stdout) = (streams.stdin.take().ok_or("no stdin")?, streams.stdout.take().ok_or("no stdout")?);
    pod.start_container("c").await?;
    let sent: Vec<u8> = (0..BYTES).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    let feeding = tokio::spawn(feed(stdin, sent.clone()));
    let mut received = Vec::with_capacity(BYTES);
    stdout.read_to_end(&mut received).await?;
    feeding.await??;
    ensure(received == sent, format!("{} of {BYTES} bytes, or others", received.len()))
}

async fn a_terminal_has_a_size(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    let terminal = StdioWanted { stdin: true, stdout: true, stderr: false, terminal: true };
    let mut members = shell("stty size; read line; stty size; echo got $line; tty");
    members["process"]["terminal"] = json!(true);
    members["process"]["consoleSize"] = json!({"height": 30, "width": 90});
    let (_, mut streams) = pod.create_container("c", &spec(members), &bench.rootfs(), terminal).await?;
    let mut stdin = streams.stdin.take().ok_or("no stdin")?;
    let mut stdout = streams.stdout.take().ok_or("no stdout")?;
    pod.start_container("c").await?;
    let mut text = Vec::new();
    while !text.ends_with(b"\n") {
        text.push(stdout.read_u8().await?);
    }
    pod.resize_terminal("c", None, 40, 100).await?;
    stdin.write_all(b"word\n").await?;
    stdout.read_to_end(&mut text).await?;
    let text = String::from_utf8_lossy(&text).replace('\r', "");
    ensure(text.starts_with("30 90\n") && text.contains("40 100\ngot word\n/dev/"), format!("{text:?}"))
}

async fn exec_runs_beside_the_init(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    keep(&bench, &pod, "c", shell("sleep 1000")).await?;
    for round in 0..10 {
        let ran = exec(&pod, "c", &format!("e{round}"), &format!("echo {round}; exit {round}")).await?;
        ensure(ran.exit.code == round && ran.stdout == format!("{round}\n"), format!("{ran:?}"))?;
    }
    ensure(!pod.pids("c").await?.is_empty(), "no processes")?;
    let none = pod
        .exec(
            "c",
            "x",
            &{
                let mut p = process("");
                p.set_args(Some(vec!["/no/such".into()]));
                p
            },
            NONE,
        )
        .await;
    ensure(none.is_err(), "a missing program ran")
}

async fn signals_end_processes(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    keep(&bench, &pod, "trap", shell("trap 'exit 9' TERM; while true; do sleep 1; done")).await?;
    // The shell needs a moment to set its trap.
    tokio::time::sleep(Duration::from_secs(2)).await;
    pod.signal("trap", None, 15, false).await?;
    ensure(pod.wait("trap", None).await?.code == 9, "TERM")?;
    keep(&bench, &pod, "kill", shell("sleep 1000 & sleep 1000 & wait")).await?;
    pod.signal("kill", None, 9, true).await?;
    ensure(pod.wait("kill", None).await?.code == 137, "KILL")?;
    pod.create_container("never", &spec(json!({})), &bench.rootfs(), NONE).await?;
    pod.signal("never", None, 9, false).await?;
    ensure(pod.wait("never", None).await?.code == 137, "killed before its start")?;
    for id in ["trap", "kill", "never"] {
        pod.remove_container(id).await?;
    }
    Ok(())
}

async fn volumes_are_shared_and_survive_containers(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    let with = |script: &str, options: &[&str], memory: &[&str]| {
        let mut members = shell(script);
        members["mounts"] = json!([
            {"destination": "/v", "type": "husk.volume", "source": "disk", "options": options},
            {"destination": "/m", "type": "husk.volume", "source": "mem", "options": memory},
        ]);
        members
    };
    let memory = ["medium=memory", "size=1048576"];
    let ran = run(
        &bench,
        &pod,
        "a",
        with("mkdir /v/sub; echo one > /v/sub/f; echo two > /m/f; stat -c %a /v /m", &[], &memory),
    )
    .await?;
    ensure(ran.stdout == "777\n777\n", format!("{ran:?}"))?;
    let ran = run(&bench, &pod, "b", with("cat /v/f /m/f; echo x > /v/g", &["ro", "subpath=sub"], &["ro"])).await?;
    ensure(ran.stdout == "one\ntwo\n" && ran.stderr.contains("Read-only"), format!("{ran:?}"))?;
    let ran = run(&bench, &pod, "c", with("head -c 2m /dev/zero > /m/big; echo $?", &[], &memory)).await?;
    ensure(ran.stdout == "1\n", format!("the tmpfs has no limit: {ran:?}"))
}

async fn a_disk_keeps_its_content_between_pods(bench: Bench) -> Outcome {
    let disk = bench.disk()?;
    let with = |script: &str, option: &str| {
        let mut members = shell(script);
        members["mounts"] = json!([{"destination": "/d", "type": "husk.disk", "source": disk, "options": [option]}]);
        members
    };
    let pod = bench.start(json!({})).await?;
    let ran = run(&bench, &pod, "a", with("echo kept > /d/f", "rw")).await?;
    ensure(ran.exit.code == 0, format!("{ran:?}"))?;
    ensure(pod.vmm_status().await?.slots.len() == 2, "the disk stays plugged without users")?;
    pod.stop(Duration::from_secs(20)).await;
    bench.remove()?;
    let pod = bench.start(json!({})).await?;
    let ran = run(&bench, &pod, "a", with("cat /d/f; echo x > /d/g", "ro")).await?;
    ensure(ran.stdout == "kept\n" && ran.stderr.contains("Read-only"), format!("{ran:?}"))?;
    pod.stop(Duration::from_secs(20)).await;
    let checked = std::process::Command::new("e2fsck").arg("-fn").arg(&disk).output()?;
    ensure(checked.status.success(), String::from_utf8_lossy(&checked.stdout))
}

async fn trees_of_the_host_are_shared(bench: Bench) -> Outcome {
    let host = tempfile::tempdir()?;
    let path = host.path();
    std::fs::write(path.join("note"), "from the host\n")?;
    let bind = |destination: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": "bind", "source": path.join(source), "options": options});
    let pod = bench.start(json!({})).await?;
    let mut members = shell("sleep 1000");
    members["mounts"] = json!([
        bind("/rw", "", &["rbind", "rw"]),
        bind("/ro", "", &["rbind", "ro"]),
        bind("/file", "note", &["rbind"]),
        bind("/below", "", &["rbind", "subpath=a/b"]),
    ]);
    keep(&bench, &pod, "a", members).await?;
    let script = "cat /rw/note /file; echo from the guest > /rw/answer; cat /ro/answer; echo x > /ro/x; \
                  echo below > /below/deep; cat /rw/a/b/deep; echo changed > /file; cat /rw/note";
    let ran = exec(&pod, "a", "e", script).await?;
    println!("        {ran:?}");
    let expected = "from the host\nfrom the host\nfrom the guest\nbelow\nchanged\n";
    ensure(ran.stdout == expected && ran.stderr.contains("/ro/x: Read-only"), format!("{ran:?}"))?;
    ensure(std::fs::read_to_string(path.join("answer"))? == "from the guest\n", "the answer is not on the host")?;
    std::fs::write(path.join("new"), "later\n")?;
    std::fs::rename(path.join("new"), path.join("note"))?;
    // Names may be believed for a second.
    let live = exec(&pod, "a", "f", "sleep 2; cat /rw/note /file").await?;
    ensure(live.stdout == "later\nchanged\n", format!("{live:?}"))?;
    pod.signal("a", None, 9, false).await?;
    pod.wait("a", None).await?;
    pod.remove_container("a").await?;
    let mut missing = shell("true");
    missing["mounts"] = json!([bind("/x", "none", &["rbind"])]);
    match pod.create_container("b", &spec(missing), &bench.rootfs(), OUTPUT).await {
        Err(error) if error.to_string().contains("does not exist on the host") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

async fn a_socket_of_the_host_is_reached(bench: Bench) -> Outcome {
    let host = tempfile::tempdir()?;
    let path = host.path().join("echo.sock");
    let listener = tokio::net::UnixListener::bind(&path)?;
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.into_split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    let pod = bench.start(json!({})).await?;
    // For this check the image needs a Perl, as Debian's has.
    let client = "use IO::Socket::UNIX; for (1..3) { my $s = IO::Socket::UNIX->new(Peer => '/s') or die $!; \
                  print $s \"hello $_\\n\"; $s->shutdown(1); print <$s>; }";
    let mut members = shell(&format!("ls -l /s; perl -e '{}'", client.replace('\'', "'\\''")));
    members["mounts"] = json!([{"destination": "/s", "type": "bind", "source": path, "options": ["rbind"]}]);
    let ran = run(&bench, &pod, "c", members).await;
    server.abort();
    let ran = ran?;
    println!("        {ran:?}");
    ensure(ran.stdout.ends_with("hello 1\nhello 2\nhello 3\n"), format!("{ran:?}"))
}

async fn a_block_device_of_the_host_is_given(bench: Bench) -> Outcome {
    let image = bench.disk()?;
    let losetup = |arguments: &[&str]| std::process::Command::new("losetup").args(arguments).arg(&image).output();
    let device = String::from_utf8(losetup(&["-f", "--show"])?.stdout)?.trim().to_owned();
    let number = std::os::unix::fs::MetadataExt::rdev(&std::fs::metadata(&device)?);
    let (major, minor) = (libc::major(number), libc::minor(number));
    let pod = bench.start(json!({})).await?;
    let mut members = shell(
        "dd if=/dev/data bs=1 skip=1080 count=2 2>/dev/null | od -An -tx1; \
                             echo hello | dd of=/dev/data bs=512 seek=100 2>&1 | tail -1; ls -l /dev/data",
    );
    members["linux"] = json!({
        "devices": [{"path": "/dev/data", "type": "b", "major": major, "minor": minor}],
        "resources": {"devices": [{"allow": true, "type": "b", "major": major, "minor": minor, "access": "rwm"}]},
    });
    let ran = run(&bench, &pod, "c", members).await;
    let detached = std::process::Command::new("losetup").args(["-d", &device]).status()?;
    let ran = ran?;
    println!("        {ran:?}");
    ensure(ran.stdout.contains("53 ef") && ran.exit.code == 0 && detached.success(), format!("{ran:?}"))?;
    let bytes = std::fs::read(&image)?;
    ensure(bytes.get(51200..51205) == Some(b"hello"), "what was written is not on the host")
}

async fn a_volume_has_a_limit(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    let mut members = shell("dd if=/dev/zero of=/v/a bs=1M count=20; df -k /v | tail -1; echo x > /other && echo fine");
    members["mounts"] = json!([{"destination": "/v", "type": "husk.volume", "source": "v",
                                "options": ["medium=disk", "size=8388608"]}]);
    let ran = run(&bench, &pod, "c", members).await?;
    println!("        {ran:?}");
    ensure(ran.stderr.contains("quota exceeded") && ran.stdout.ends_with("fine\n"), format!("{ran:?}"))
}

async fn deleted_space_goes_back_to_the_host(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    let used = || Ok::<_, std::io::Error>(std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(bench.scratch())?));
    keep(&bench, &pod, "c", shell("sleep 1000")).await?;
    exec(&pod, "c", "w", "dd if=/dev/urandom of=/big bs=1M count=32; sync").await?;
    let full = used()?;
    exec(&pod, "c", "d", "rm /big; sync").await?;
    for _ in 0..60 {
        if used()? + 50_000 < full {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Err(format!("{full} blocks were used, and {} are a minute later", used()?).into())
}

async fn process_namespaces_can_be_shared(bench: Bench) -> Outcome {
    let pod = bench.start(json!({"annotations": {"dev.husk.share-process-namespace": "true"}})).await?;
    keep(&bench, &pod, "a", shell("exec sleep 4321")).await?;
    keep(&bench, &pod, "b", shell("exec sleep 1000")).await?;
    let ran = exec(&pod, "b", "e", "ps -o pid,args; (sleep 0 &) ; sleep 1; ps -o stat | grep -c Z").await?;
    ensure(ran.stdout.contains("sleep 4321"), format!("{ran:?}"))?;
    ensure(ran.stdout.ends_with("\n0\n"), format!("a zombie is left: {ran:?}"))
}

async fn a_missing_program_is_an_error(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    let members = json!({"process": {"args": ["/no/such/program"]}});
    let result = match pod.create_container("c", &spec(members), &bench.rootfs(), NONE).await {
        Err(error) => Err(error.to_string()),
        Ok(_) => pod.start_container("c").await.map_err(|error| error.to_string()),
    };
    let message = result.expect_err("a missing program ran");
    println!("        {message}");
    ensure(message.contains("/no/such/program"), message)
}

async fn devices_come_and_go_a_hundred_times(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    for round in 0..100 {
        let id = format!("c{round}");
        pod.create_container(&id, &spec(json!({})), &bench.rootfs(), NONE).await?;
        pod.remove_container(&id).await?;
    }
    let status = pod.vmm_status().await?;
    let blk = status.slots.iter().filter(|slot| slot.device == "blk").count();
    let ran = run(&bench, &pod, "last", shell("ls -d /sys/block/vd*; cat /proc/mounts | grep -c erofs")).await?;
    println!("        {} | {status:?}", ran.stdout.replace('\n', " "));
    ensure(blk == 1, format!("{status:?}"))
}

async fn a_killed_vmm_is_noticed(bench: Bench) -> Outcome {
    let pod = bench.start(json!({})).await?;
    keep(&bench, &pod, "c", json!({})).await?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(pod.vmm_pid())?).ok_or("pid 0")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    ensure(pod.wait("c", None).await?.code == 137, "exit code")?;
    pod.remove_container("c").await?;
    pod.stop(Duration::from_secs(1)).await;
    ensure(pod.ended().await.to_string().contains("SIGKILL"), pod.ended().await.to_string())?;
    bench.forgive();
    Ok(())
}
