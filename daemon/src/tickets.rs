//! Single-use tickets: what ties a frame on the secret socket to a request that the admin socket allowed.
//!
//! No I/O and no clock: the time is passed in. A ticket is for one uid and one purpose, lives 60 s and is gone after
//! its first use, also when that use is refused. Only digests are kept, so a lookup compares nothing secret byte
//! by byte.

use std::collections::HashMap;

use mcpist_core::ids::Digest;
use mcpist_secret::frame::Ticket;

/// How long a ticket may be used, in seconds.
pub(crate) const LIFETIME_S: u64 = 60;
/// Tickets outstanding at once; a caller past it waits for older ones to expire.
const OUTSTANDING: usize = 64;
/// Of them, those of one user, so that nobody keeps the others out.
const OF_ONE_USER: usize = 8;

struct Issued<P> {
    uid: u32,
    purpose: P,
    expires: u64,
}

/// Outstanding tickets for purposes of type `P`.
pub(crate) struct Tickets<P> {
    issued: HashMap<Digest, Issued<P>>,
}

/// Why a ticket was not issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many tickets are outstanding; use one of them or wait {LIFETIME_S} s")]
pub(crate) struct TooManyTickets;

/// Why a ticket does not serve. The caller is told the same for all of them; the log gets the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TicketRefusal {
    /// Never issued, or used before.
    #[error("the ticket is unknown or was used")]
    Unknown,
    /// Older than its lifetime.
    #[error("the ticket expired")]
    Expired,
    /// Issued to another uid.
    #[error("the ticket was issued to another user")]
    OtherUser,
}

impl<P> Tickets<P> {
    /// No tickets.
    pub(crate) fn new() -> Self {
        Self {
            issued: HashMap::new(),
        }
    }

    /// Records `ticket` for `uid` and `purpose` from `now` (seconds of a clock that never goes back).
    pub(crate) fn issue(
        &mut self,
        ticket: &Ticket,
        uid: u32,
        purpose: P,
        now: u64,
    ) -> Result<(), TooManyTickets> {
        self.issued.retain(|_, t| t.expires > now);
        let own = self.issued.values().filter(|t| t.uid == uid).count();
        if own >= OF_ONE_USER || self.issued.len() >= OUTSTANDING {
            return Err(TooManyTickets);
        }
        let expires = now.saturating_add(LIFETIME_S);
        self.issued.insert(
            Digest::of(ticket.as_bytes()),
            Issued {
                uid,
                purpose,
                expires,
            },
        );
        Ok(())
    }

    /// Takes the ticket away and gives its purpose, if it is `uid`'s and still good.
    pub(crate) fn redeem(
        &mut self,
        ticket: &Ticket,
        uid: u32,
        now: u64,
    ) -> Result<P, TicketRefusal> {
        let issued = self
            .issued
            .remove(&Digest::of(ticket.as_bytes()))
            .ok_or(TicketRefusal::Unknown)?;
        if issued.expires <= now {
            return Err(TicketRefusal::Expired);
        }
        if issued.uid != uid {
            return Err(TicketRefusal::OtherUser);
        }
        Ok(issued.purpose)
    }

    /// Takes every outstanding ticket away (at seal).
    pub(crate) fn clear(&mut self) {
        self.issued.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ticket(byte: u8) -> Ticket {
        Ticket::from_bytes([byte; 32])
    }

    #[test]
    fn a_ticket_serves_once() {
        let mut tickets = Tickets::new();
        tickets.issue(&ticket(1), 1000, "unseal", 0).unwrap();
        assert_eq!(tickets.redeem(&ticket(1), 1000, 1), Ok("unseal"));
        assert_eq!(
            tickets.redeem(&ticket(1), 1000, 1),
            Err(TicketRefusal::Unknown)
        );
    }

    #[test]
    fn another_uid_is_refused_and_uses_the_ticket_up() {
        let mut tickets = Tickets::new();
        tickets.issue(&ticket(1), 1000, (), 0).unwrap();
        assert_eq!(
            tickets.redeem(&ticket(1), 1001, 1),
            Err(TicketRefusal::OtherUser)
        );
        assert_eq!(
            tickets.redeem(&ticket(1), 1000, 1),
            Err(TicketRefusal::Unknown)
        );
    }

    #[test]
    fn a_ticket_is_good_for_less_than_its_lifetime() {
        let mut tickets = Tickets::new();
        tickets.issue(&ticket(1), 1000, (), 10).unwrap();
        tickets.issue(&ticket(2), 1000, (), 10).unwrap();
        assert_eq!(tickets.redeem(&ticket(1), 1000, 69), Ok(()));
        assert_eq!(
            tickets.redeem(&ticket(2), 1000, 70),
            Err(TicketRefusal::Expired)
        );
    }

    #[test]
    fn outstanding_tickets_are_bounded_and_expired_ones_make_room() {
        let mut tickets = Tickets::new();
        for n in 0..OUTSTANDING {
            let uid = 1000 + (n / OF_ONE_USER) as u32;
            tickets.issue(&ticket(n as u8), uid, (), 0).unwrap();
        }
        let late = tickets.issue(&ticket(200), 2000, (), 59);
        assert_eq!(late, Err(TooManyTickets));
        tickets.issue(&ticket(200), 2000, (), 60).unwrap();
    }

    #[test]
    fn one_user_does_not_keep_the_others_out() {
        let mut tickets = Tickets::new();
        for n in 0..OF_ONE_USER {
            tickets.issue(&ticket(n as u8), 1000, (), 0).unwrap();
        }
        let more = tickets.issue(&ticket(200), 1000, (), 0);
        assert_eq!(more, Err(TooManyTickets));
        tickets.issue(&ticket(200), 1001, (), 0).unwrap();
    }
}
