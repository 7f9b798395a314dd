//! Which protocol is spoken: the first of the client's that is known here.

use crate::spdy::port_forward::PROTOCOL as PORT_FORWARD;
use crate::status::StatusFormat;
use crate::websocket::Codec;

/// What a name stands for.
pub(crate) type Known<T> = (&'static str, T);

/// remotecommand over SPDY. Version 5 differs from 4 in how WebSocket's channels are closed, and is not for SPDY. What
/// the older ones lack, a client that speaks them does not use.
pub(crate) const SPDY_REMOTECOMMAND: &[Known<StatusFormat>] = &[
    ("v4.channel.k8s.io", StatusFormat::Json),
    ("v3.channel.k8s.io", StatusFormat::Text),
    ("v2.channel.k8s.io", StatusFormat::Text),
    ("channel.k8s.io", StatusFormat::Text),
];

/// Port-forward over SPDY.
pub(crate) const SPDY_PORT_FORWARD: &[Known<()>] = &[(PORT_FORWARD, ())];

/// remotecommand over WebSocket.
pub(crate) const WEBSOCKET_REMOTECOMMAND: &[Known<(Codec, StatusFormat)>] = &[
    ("v5.channel.k8s.io", (Codec::BinaryWithClose, StatusFormat::Json)),
    ("v4.channel.k8s.io", (Codec::Binary, StatusFormat::Json)),
    ("v4.base64.channel.k8s.io", (Codec::Base64, StatusFormat::Json)),
    ("channel.k8s.io", (Codec::Binary, StatusFormat::Text)),
    ("base64.channel.k8s.io", (Codec::Base64, StatusFormat::Text)),
];

/// How port-forward is spoken over WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WebSocketPortForward {
    /// A connection of SPDY, whose bytes are in binary messages.
    Tunnel,
    /// Two channels for each port.
    Channels(Codec),
}

/// Port-forward over WebSocket.
pub(crate) const WEBSOCKET_PORT_FORWARD: &[Known<WebSocketPortForward>] = &[
    ("SPDY/3.1+portforward.k8s.io", WebSocketPortForward::Tunnel),
    ("v4.channel.k8s.io", WebSocketPortForward::Channels(Codec::Binary)),
    ("v4.base64.channel.k8s.io", WebSocketPortForward::Channels(Codec::Base64)),
];

/// The client's first choice of what is known. Without any offer it is of the time before there was a choice: then the
/// oldest, `without`, and no name.
pub(crate) fn choose<T: Copy>(offered: &[&str], known: &[Known<T>], without: T) -> Option<(Option<&'static str>, T)> {
    if offered.is_empty() {
        return Some((None, without));
    }
    let known_as = |offer: &&str| known.iter().find(|(name, _)| name == offer);
    offered.iter().find_map(known_as).map(|(name, what)| (Some(*name), *what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_offer_that_is_known_is_chosen() {
        let offered = ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io"];
        let chosen = choose(&offered, SPDY_REMOTECOMMAND, StatusFormat::Text);
        assert_eq!(chosen, Some((Some("v4.channel.k8s.io"), StatusFormat::Json)));
        let chosen = choose(&["channel.k8s.io"], SPDY_REMOTECOMMAND, StatusFormat::Text);
        assert_eq!(chosen, Some((Some("channel.k8s.io"), StatusFormat::Text)));
    }

    #[test]
    fn without_an_offer_the_oldest_is_spoken_and_not_named() {
        assert_eq!(choose(&[], SPDY_REMOTECOMMAND, StatusFormat::Text), Some((None, StatusFormat::Text)));
    }

    #[test]
    fn unknown_offers_are_refused() {
        assert_eq!(choose(&["v6.channel.k8s.io"], SPDY_REMOTECOMMAND, StatusFormat::Text), None);
    }
}
