//! Flow control (section 5.10.6.3). All counters wrap at 32 bits.

use super::{BUFFER, CREDIT_UPDATE};

/// What each side of a connection may send.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Credit {
    /// The guest's receive buffer, and how much of what we sent it has taken out.
    peer_buf_alloc: u32,
    peer_fwd_cnt: u32,
    /// Bytes sent to the guest.
    sent: u32,
    /// Bytes from the guest that left our buffer, and what of that the guest has been told.
    forwarded: u32,
    announced: u32,
}

impl Credit {
    /// Every packet from the guest carries its state.
    pub(super) fn update(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.peer_buf_alloc = buf_alloc;
        self.peer_fwd_cnt = fwd_cnt;
    }

    /// Bytes that may be sent to the guest. A guest that claims nonsense gets nothing.
    pub(super) fn available(&self) -> u32 {
        let in_flight = self.sent.wrapping_sub(self.peer_fwd_cnt);
        self.peer_buf_alloc.saturating_sub(in_flight)
    }

    pub(super) fn add_sent(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }

    /// Bytes from the guest reached the host process, or were thrown away because it is gone.
    pub(super) fn add_forwarded(&mut self, bytes: u32) {
        self.forwarded = self.forwarded.wrapping_add(bytes);
    }

    /// So much has become free unannounced that the guest should hear of it.
    pub(super) fn is_update_due(&self) -> bool {
        self.forwarded.wrapping_sub(self.announced) >= CREDIT_UPDATE
    }

    /// Our `buf_alloc` and `fwd_cnt` for a packet that is about to be sent.
    pub(super) fn announce(&mut self) -> (u32, u32) {
        self.announced = self.forwarded;
        (BUFFER, self.forwarded)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn credit_is_right_across_the_wrap(start: u32, window in 1_u32..1 << 20, in_flight in 0_u32..1 << 20) {
            let mut credit = Credit { sent: start, ..Credit::default() };
            credit.update(window, start);
            prop_assert_eq!(credit.available(), window);
            credit.add_sent(in_flight);
            prop_assert_eq!(credit.available(), window.saturating_sub(in_flight));
            credit.update(window, start.wrapping_add(in_flight));
            prop_assert_eq!(credit.available(), window);
        }

        #[test]
        fn a_lying_guest_never_gets_more_than_its_window(sent: u32, alloc: u32, forwarded: u32) {
            let mut credit = Credit { sent, ..Credit::default() };
            credit.update(alloc, forwarded);
            prop_assert!(credit.available() <= alloc);
        }
    }

    #[test]
    fn updates_are_due_by_quarters() {
        let mut credit = Credit { forwarded: u32::MAX, announced: u32::MAX, ..Credit::default() };
        credit.add_forwarded(CREDIT_UPDATE - 1);
        assert!(!credit.is_update_due());
        credit.add_forwarded(1);
        assert!(credit.is_update_due());
        assert_eq!(credit.announce(), (BUFFER, CREDIT_UPDATE - 1));
        assert!(!credit.is_update_due());
    }
}
