//! Witness receipts: given out, taken back, and judged before a store that a quorum opened does anything.
//!
//! Owns what stands outside the disk as evidence of its state. Promises that a store which a receipt of its own
//! contradicts is sealed again before its audit log is opened, anything is written or anybody is served; that one which
//! serves already is sealed as soon as such a receipt is presented; that a receipt which the store's key did not sign
//! changes nothing; and that a receipt is given out over what is on the disk of store and log alone. A receipt that
//! cannot be made fails no act: the act is done, the receipt is missing, the log says why.

use std::sync::Arc;
use std::time::Instant;

use mcpist_core::api::{self, Alarm, ApiError, Presented, WitnessStatus};
use mcpist_core::audit::{Anchor, Seq};
use mcpist_core::date;
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_quorum::{Contradiction, LogPoint, Receipt, StorePoint, judge};
use mcpist_sealer::{Barrier, Unsealed};
use mcpist_secret::Secret;

use super::init::{STORE_KEY, signer};
use super::restore::Restoring;
use super::{
    Keeper, Open, Phase, View, audit_error, counter, records, records_error, today, vault_error,
};
use crate::anchor::Receipts;
use crate::audit::Asker;
use crate::clock::steady_seconds;

/// What the keeper knows from outside the disk.
#[derive(Default)]
pub(super) struct Witness {
    /// For the next quorum.
    waiting: Receipts,
    /// Why the last one was sent away; until the store opens.
    refused: Option<Alarm>,
}

impl Witness {
    /// The receipts that wait for a quorum.
    pub(super) fn waiting(&self) -> Vec<Receipt> {
        self.waiting.all().cloned().collect()
    }

    /// What an operator has to know of a store that was not opened.
    pub(super) fn alarm(&self) -> Option<Alarm> {
        self.refused.clone()
    }
}

/// The newest receipt that was given out since the store opened.
#[derive(Clone, Copy)]
pub(crate) struct Given {
    /// In steady seconds.
    at: u64,
    generation: u64,
}

impl Given {
    /// How old it is, and what is newer; nothing once the store is closed. Waits for nothing.
    pub(crate) fn shown(&self, view: &View) -> Option<WitnessStatus> {
        let now = view.vaults()?.system().status().generation;
        Some(WitnessStatus {
            age_s: steady_seconds().saturating_sub(self.at),
            generation: self.generation,
            newer: now.saturating_sub(self.generation),
        })
    }
}

/// What the log's head is in a receipt.
pub(super) fn log_point(head: &Anchor) -> LogPoint {
    LogPoint {
        sequence: head.seq,
        head: *head.head.as_bytes(),
    }
}

/// The store's own key, which signs its receipts.
pub(super) fn store_key(barrier: &Barrier<Unsealed>) -> Result<Secret, ApiError> {
    records::open(&barrier.system(), STORE_KEY).map_err(|e| records_error(&e))
}

impl Open {
    /// A receipt of the store as it is on its disk, its log having stood at `log` on its own.
    pub(super) fn receipt(&mut self, log: LogPoint) -> Result<Receipt, ApiError> {
        let vaults = self.vaults();
        vaults.settle().map_err(|e| vault_error(&e))?;
        let at = vaults.point().map_err(|e| vault_error(&e))?;
        let store = self.barrier.config().store();
        let receipt = Receipt::sign(store, at, log, today(), &signer(&self.store_key)?);
        self.given = Some(Given {
            at: steady_seconds(),
            generation: at.generation,
        });
        Ok(receipt)
    }
}

impl Keeper {
    /// The text of a receipt for the answer of an act that is done.
    pub(super) fn receipt(&mut self) -> Option<String> {
        let made = self.make_receipt();
        let made = made.inspect_err(|e| log::warn!("no witness receipt: {}", e.message));
        made.ok().map(|receipt| receipt.to_text())
    }

    /// [`Keeper::receipt`] of an act that raises the TPM counter as well. It is done, whatever the counter says: the next
    /// unseal holds that against the store.
    pub(super) fn witnessed(&mut self) -> Option<String> {
        let house = Arc::clone(&self.house);
        if let Some(tpm) = &house.config.tpm {
            let raised = self
                .open()
                .and_then(|open| counter::raise(open.vaults(), tpm));
            if let Err(e) = raised {
                log::error!("the TPM counter was not raised: {}", e.message);
            }
        }
        self.receipt()
    }

    /// A receipt for who asks for one.
    pub(crate) fn pull_receipt(&mut self, uid: u32) -> Result<api::Receipt, ApiError> {
        let receipt = self.make_receipt()?;
        let generation = receipt.at().generation;
        let event = Event::ReceiptGiven { generation, uid };
        let (audit, asker) = (&self.house.audit, Asker::Served(uid));
        let given = audit.append_limited(asker, &event, Instant::now());
        given.map_err(|e| audit_error(&e))?;
        Ok(api::Receipt {
            receipt: receipt.to_text(),
        })
    }

    fn make_receipt(&mut self) -> Result<Receipt, ApiError> {
        let house = Arc::clone(&self.house);
        let head = house.audit.state().head;
        let open = self.open()?;
        let head = head.ok_or(ApiError::of(ErrorCode::Sealed))?;
        // A log that a power cut shortens must not look like one that somebody did.
        let synced = house.audit.synced_blocking(Seq(head.seq));
        synced.map_err(|e| ApiError::new(ErrorCode::AuditUnavailable, &e.to_string()))?;
        open.receipt(log_point(&head))
    }

    /// Takes a receipt: for the next quorum, or judges the open store by it at once.
    pub(crate) fn present_receipt(&mut self, uid: u32, text: &str) -> Result<Presented, ApiError> {
        let receipt = Receipt::parse(text)
            .map_err(|e| ApiError::new(ErrorCode::RequestInvalid, &e.to_string()))?;
        // A restore that waits is of the store that will be here.
        let restored = self.restoring.as_deref().map(Restoring::store);
        let store = match (&self.phase, restored) {
            (Phase::Nowhere, _) => return Err(ApiError::of(ErrorCode::Internal)),
            (Phase::Unsealed(open), _) => open.barrier.config().store(),
            (_, Some(store)) => store,
            (Phase::Sealed(barrier), None) => barrier.config().store(),
            (Phase::Blank, None) => return Err(ApiError::of(ErrorCode::NotInitialised)),
        };
        if receipt.store() != store {
            let text = format!(
                "the receipt is of store {}, and this host has store {store}",
                receipt.store()
            );
            return Err(ApiError::new(ErrorCode::NotFound, &text).next("mcpist status"));
        }
        if matches!(&self.phase, Phase::Unsealed(open) if !open.is_revoked()) {
            return self.judge_open(uid, &receipt);
        }
        let waiting = self.witness.waiting.present(uid, receipt).map_err(|e| {
            ApiError::new(ErrorCode::Busy, &e.to_string())
                .next("unseal, which judges them; or restart mcpistd, which forgets them")
        })?;
        log::info!("a witness receipt of uid {uid} waits for the quorum");
        Ok(Presented::Waiting {
            receipts: waiting as u64,
        })
    }

    /// Judges the open store by one receipt. One that contradicts it closes it.
    fn judge_open(&mut self, uid: u32, receipt: &Receipt) -> Result<Presented, ApiError> {
        let open = self.open()?;
        let at = open.vaults().point().map_err(|e| vault_error(&e))?;
        let key = mcpist_core::audit::public_key(&signer(&open.store_key)?);
        let judged = judge(receipt.store(), &key, &at, [receipt]);
        if let Some((why, by)) = judged.refused {
            let error = self.refuse_store(uid, why, &at, by);
            // For the next quorum as well.
            let _ = self.witness.waiting.present(uid, by.clone());
            let _ = self.seal(Some(uid), "a witness receipt contradicts the store");
            return Err(error);
        }
        if let Some((why, _)) = judged.ignored.first() {
            self.note_ignored(uid, why.as_str());
            let text = format!(
                "the receipt says nothing about this store: {}",
                why.as_str()
            );
            return Err(ApiError::new(ErrorCode::Conflict, &text)
                .reason(why.as_str())
                .next("mcpist witness show"));
        }
        Ok(Presented::Agrees {
            newer: at.generation.saturating_sub(receipt.at().generation),
        })
    }

    /// Judges a store that a quorum has just opened by what waits. An error means that it must be sealed again.
    pub(super) fn judge_witness(
        &mut self,
        uid: u32,
        barrier: &Barrier<Unsealed>,
    ) -> Result<(), ApiError> {
        let at = barrier.point().map_err(|e| vault_error(&e))?;
        let key = mcpist_core::audit::public_key(&signer(&store_key(barrier)?)?);
        let (refused, ignored) = {
            let judged = judge(
                barrier.config().store(),
                &key,
                &at,
                self.witness.waiting.all(),
            );
            let ignored = judged.ignored.into_iter();
            (
                judged.refused.map(|(why, by)| (why, by.clone())),
                ignored.map(|(why, r)| (why, r.clone())).collect::<Vec<_>>(),
            )
        };
        for (of, why) in self.witness.waiting.drop_ignored(&ignored) {
            self.note_ignored(of, why.as_str());
        }
        if let Some((why, by)) = refused {
            return Err(self.refuse_store(uid, why, &at, &by));
        }
        let judged = counter::judge(barrier, self.house.config.tpm.as_ref());
        judged.inspect_err(|e| {
            log::error!("{}", e.message);
            self.witness.refused = Some(Alarm {
                code: e.code,
                message: e.message.clone(),
            });
            let _ = self.house.audit.append(&Event::StoreRefused {
                reason: "tpm_counter",
                generation: at.generation,
                shown: at.generation,
                uid: Some(uid),
            });
        })
    }

    /// Raises the TPM counter, where there is one.
    pub(super) fn raise_counter(&mut self, uid: u32) -> Result<(), ApiError> {
        let house = Arc::clone(&self.house);
        let Some(tpm) = &house.config.tpm else {
            return Ok(());
        };
        if counter::raise(self.open()?.vaults(), tpm)? {
            let index = tpm.index();
            log::info!("the store is bound to the TPM counter at index {index:#010x}");
            let bound = house.audit.append(&Event::TpmBound { index, uid });
            bound.map_err(|e| audit_error(&e))?;
        }
        Ok(())
    }

    /// The store opened and serves.
    pub(super) fn witness_agreed(&mut self) {
        self.witness.waiting.clear();
        self.witness.refused = None;
    }

    fn note_ignored(&self, uid: u32, reason: &'static str) {
        log::warn!("a witness receipt of uid {uid} says nothing about this store: {reason}");
        // While the log is closed it notes this for its opening; while it is open, a user has a share of lines.
        let event = Event::ReceiptIgnored { reason, uid };
        let (audit, asker) = (&self.house.audit, Asker::User(uid));
        let _ = audit.append_limited(asker, &event, Instant::now());
    }

    /// Tells log and status that the store must not be open, and gives the error that says so.
    fn refuse_store(
        &mut self,
        uid: u32,
        why: Contradiction,
        at: &StorePoint,
        by: &Receipt,
    ) -> ApiError {
        let shown = by.at().generation;
        let (code, reason) = match why {
            Contradiction::RolledBack => (ErrorCode::StoreRolledBack, "rolled_back"),
            Contradiction::Forked => (ErrorCode::StoreRolledBack, "forked"),
            Contradiction::Fenced => (ErrorCode::Fenced, "fenced"),
        };
        let error = ApiError::new(code, &refusal(why, at, by, today())).reason(reason);
        log::error!("{}", error.message);
        // While the log is closed it notes this for its opening.
        let _ = self.house.audit.append(&Event::StoreRefused {
            reason,
            generation: at.generation,
            shown,
            uid: Some(uid),
        });
        self.witness.refused = Some(Alarm {
            code,
            message: error.message.clone(),
        });
        error
    }
}

/// What a receipt shows that the store does not, in words.
fn refusal(why: Contradiction, at: &StorePoint, by: &Receipt, now: u64) -> String {
    let (life, shown) = (&at.incarnation, by.at());
    let what = match why {
        Contradiction::RolledBack => format!(
            "the store was put back: it is at generation {}, and a witness receipt shows {}",
            at.generation, shown.generation
        ),
        Contradiction::Forked => format!(
            "the store was put back and went on from there: a witness receipt shows another state of its generation {}",
            at.generation
        ),
        Contradiction::Fenced => format!(
            "the store goes on elsewhere: this is life {}, and a witness receipt shows life {}, restored on another disk",
            life.counter, shown.incarnation.counter
        ),
    };
    let hours = now.saturating_sub(by.time()) / 3600;
    format!(
        "{what}; the receipt is of {}, {hours} hours ago",
        date::date(by.time())
    )
}
