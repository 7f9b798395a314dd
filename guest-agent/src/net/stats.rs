//! What has passed the pod's interfaces.

use husk_agent_api::v1::NetworkStats;

/// More interfaces than the host gives a pod.
const MAX_INTERFACES: usize = 32;

/// Of every interface but the loopback; none when the kernel does not say.
#[must_use]
pub fn read() -> Vec<NetworkStats> {
    parse(&std::fs::read_to_string("/proc/net/dev").unwrap_or_default())
}

/// Lines of proc_pid_net(5)'s `dev`: two of headings, then `NAME: ` and sixteen counters.
fn parse(text: &str) -> Vec<NetworkStats> {
    text.lines()
        .skip(2)
        .filter_map(|line| {
            let (name, counters) = line.trim().split_once(':')?;
            let counters: Vec<u64> = counters.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
            let [
                rx_bytes,
                rx_packets,
                rx_errors,
                rx_dropped,
                _,
                _,
                _,
                _,
                tx_bytes,
                tx_packets,
                tx_errors,
                tx_dropped,
                ..,
            ] = counters.as_slice()
            else {
                return None;
            };
            (name != "lo").then(|| NetworkStats {
                name: name.to_owned(),
                received_bytes: *rx_bytes,
                received_packets: *rx_packets,
                received_errors: *rx_errors,
                received_dropped: *rx_dropped,
                sent_bytes: *tx_bytes,
                sent_packets: *tx_packets,
                sent_errors: *tx_errors,
                sent_dropped: *tx_dropped,
            })
        })
        .take(MAX_INTERFACES)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_not_counted() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets\n    lo: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n bad: 1\n";
        let stats = parse(text);
        let [eth0] = stats.as_slice() else { panic!("{stats:?}") };
        assert_eq!((eth0.name.as_str(), eth0.received_bytes, eth0.received_dropped), ("eth0", 1, 4));
        assert_eq!((eth0.sent_bytes, eth0.sent_packets, eth0.sent_errors, eth0.sent_dropped), (9, 10, 11, 12));
    }
}
