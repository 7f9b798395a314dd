//! The smallest guest: it holds a tap's descriptor, resolves and answers ARP (RFC 826), and sends UDP datagrams back.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `struct virtio_net_hdr`, which stands before each frame until TUNSETVNETHDRSZ says otherwise.
const VNET_HEADER: usize = 10;
const ETHERNET: usize = 14;
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;

pub(crate) struct Guest {
    tap: AsyncFd<OwnedFd>,
    mac: [u8; 6],
    ip: Ipv4Addr,
}

impl Guest {
    pub(crate) fn new(tap: OwnedFd, mac: [u8; 6], ip: Ipv4Addr) -> Self {
        // SAFETY: an `OwnedFd` names one descriptor for its whole life and keeps it open; nothing takes it out again.
        let tap = unsafe { AsyncFd::register(tap) }.unwrap();
        Self { tap, mac, ip }
    }

    /// Answers for ever.
    pub(crate) async fn serve(&self) {
        loop {
            if let Some(answer) = self.answer(&self.receive().await) {
                self.send(&answer).await;
            }
        }
    }

    /// Asks who has the address.
    pub(crate) async fn resolve(&self, ip: Ipv4Addr) -> [u8; 6] {
        let asking = async {
            loop {
                self.send(&self.arp(ARP_REQUEST, [0xff; 6], ip)).await;
                let reply = tokio::time::timeout(Duration::from_secs(1), self.arp_reply(ip)).await;
                if let Ok(mac) = reply {
                    break mac;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), asking).await.expect("nobody answered the guest's ARP request")
    }

    async fn arp_reply(&self, from: Ipv4Addr) -> [u8; 6] {
        loop {
            let frame = self.receive().await;
            if is_arp(&frame, ARP_REPLY) && frame[28..32] == from.octets() && frame[38..42] == self.ip.octets() {
                return frame[22..28].try_into().unwrap();
            }
        }
    }

    fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        if is_arp(frame, ARP_REQUEST) && frame[38..42] == self.ip.octets() {
            let ip: [u8; 4] = frame[28..32].try_into().unwrap();
            return Some(self.arp(ARP_REPLY, frame[22..28].try_into().unwrap(), ip.into()));
        }
        let udp = frame.len() >= ETHERNET + 28 && frame[12..14] == [8, 0] && frame[14] == 0x45 && frame[23] == 17;
        (udp && frame[30..34] == self.ip.octets()).then(|| {
            // Both checksums are sums, which do not mind the order.
            let mut echo = frame.to_vec();
            echo[0..6].copy_from_slice(&frame[6..12]);
            echo[6..12].copy_from_slice(&self.mac);
            echo[26..30].copy_from_slice(&frame[30..34]);
            echo[30..34].copy_from_slice(&frame[26..30]);
            echo[34..36].copy_from_slice(&frame[36..38]);
            echo[36..38].copy_from_slice(&frame[34..36]);
            echo
        })
    }

    fn arp(&self, operation: u8, to: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
        let ethernet = [&to[..], &self.mac, &[8, 6]].concat();
        let target = if operation == ARP_REQUEST { [0; 6] } else { to };
        let head = [0, 1, 8, 0, 6, 4, 0, operation];
        [&ethernet[..], &head, &self.mac, &self.ip.octets(), &target, &ip.octets()].concat()
    }

    async fn receive(&self) -> Vec<u8> {
        let read = |tap: &OwnedFd| {
            let mut buffer = [0; 65536];
            let length = rustix::io::read(tap, &mut buffer)?;
            Ok(buffer[VNET_HEADER..length].to_vec())
        };
        self.tap.async_io(Interest::READABLE, read).await.unwrap()
    }

    async fn send(&self, frame: &[u8]) {
        let frame = [&[0; VNET_HEADER], frame].concat();
        let write = |tap: &OwnedFd| Ok(rustix::io::write(tap, &frame)?);
        assert_eq!(self.tap.async_io(Interest::WRITABLE, write).await.unwrap(), frame.len());
    }
}

fn is_arp(frame: &[u8], operation: u8) -> bool {
    frame.len() >= ETHERNET + 28 && frame[12..14] == [8, 6] && frame[20..22] == [0, operation]
}
