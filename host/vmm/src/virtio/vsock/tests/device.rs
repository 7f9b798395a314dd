//! The whole device: real listener, real queues.

use super::*;

struct StopOnDrop<'a>(&'a vmm_sys_util::eventfd::EventFd);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.write(1).unwrap();
    }
}

/// The whole device: real listener, real queues, on a thread of its own.
#[test]
fn header_and_data_may_share_descriptors_or_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vsock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut device = Vsock::new(CID, listener.into()).unwrap();
    let ram = ram();
    let mut rx = Ring::new(&ram, 0, 16);
    let mut tx = Ring::new(&ram, 0x1000, 16);
    let event = Ring::new(&ram, 0x2000, 16);
    let interrupt = Interrupt::new().unwrap();
    let queues = [&rx, &tx, &event].map(|ring| ring.activate(&ram, interrupt.clone())).into();
    let session = Session { memory: Arc::clone(&ram), queues, features: 0 };
    let stop = eventfd().unwrap();
    std::thread::scope(|scope| {
        // Also when an assertion fails: the scope waits for the device.
        let _stop = StopOnDrop(&stop);
        let serving = scope.spawn(|| device.serve(session, &stop));
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(format!("CONNECT {GUEST_PORT}\n").as_bytes()).unwrap();
        // Header alone, then data; all in one; a header in two pieces; too short for a header.
        rx.offer(&[(RX, 44, true), (RX + 44, 100, true)]);
        let (_, length) = rx.used();
        assert_eq!(length, 44);
        let request = Header::parse(&read(&ram, RX, HEADER_LEN).try_into().unwrap());
        assert_eq!(request.op, op::REQUEST);
        let answer = |op, payload: &[u8]| {
            let header = Header {
                src_cid: u64::from(CID),
                dst_cid: HOST_CID,
                src_port: GUEST_PORT,
                dst_port: request.src_port,
                len: u32::try_from(payload.len()).unwrap(),
                kind: TYPE_STREAM,
                op,
                buf_alloc: WINDOW,
                ..Header::default()
            };
            ram.write_slice(&[&header.to_bytes(), payload].concat(), GuestAddress(TX)).unwrap();
        };
        answer(op::RESPONSE, b"");
        tx.offer(&[(TX, 44, false)]);
        tx.used();
        let mut line = vec![0; format!("OK {}\n", request.src_port).len()];
        client.read_exact(&mut line).unwrap();
        // To the guest.
        for pieces in [
            &[(RX, 44, true), (RX + 44, 100, true)][..],
            &[(RX, 144, true)],
            &[(RX, 20, true), (RX + 20, 30, true), (RX + 50, 94, true)],
        ] {
            rx.offer(&[(RX, 43, true)]);
            rx.offer(&[(RX, 44, true)]);
            rx.offer(pieces);
            client.write_all(b"to the guest").unwrap();
            let used = [rx.used(), rx.used(), rx.used()].map(|(_, length)| length);
            // Too short for a header; without room for data; good.
            assert_eq!(used, [0, 0, 44 + 12], "{pieces:?}");
            assert_eq!(read(&ram, RX + 44, 12), b"to the guest");
        }
        // From the guest.
        for pieces in [
            &[(TX, 44, false), (TX + 44, 14, false)][..],
            &[(TX, 58, false)],
            &[(TX, 10, false), (TX + 10, 40, false), (TX + 50, 4, false), (TX + 54, 4, false)],
        ] {
            answer(op::RW, b"from the guest");
            tx.offer(pieces);
            let mut bytes = [0; 14];
            client.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"from the guest");
            tx.used();
        }
        stop.write(1).unwrap();
        serving.join().unwrap().unwrap();
    });
}

#[test]
fn only_a_listening_socket_and_a_guests_cid_make_a_device() {
    let (stream, _other) = UnixStream::pair().unwrap();
    assert!(matches!(Vsock::new(3, stream.into()), Err(VsockError::NotListening)));
    let file = tempfile::tempfile().unwrap();
    assert!(matches!(Vsock::new(3, file.into()), Err(VsockError::NotListening)));
    for cid in [0, 1, 2, u32::MAX] {
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(Vsock::new(cid, file.into()), Err(VsockError::Cid(_))));
    }
}
