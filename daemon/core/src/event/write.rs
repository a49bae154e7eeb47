//! How each event is written: its name ([`super::name`]) and its fields, in this order. No I/O.
//!
//! Owns: the words of the audit log. A field that is written nowhere here is in no line.
//! Does not: escape or bound; [`Fields`] does.

use super::{Event, MAX_ITEMS, RotationStep, Step};
use crate::audit::Fields;
use crate::error::ErrorCode;
use crate::ids::{ModuleRev, PrincipalName, SiteId};

impl Event<'_> {
    /// Writes `"event":"…"` and the event's own fields.
    pub(crate) fn write(&self, line: &mut Fields<'_>) {
        line.text("event", self.name());
        match *self {
            Event::Start {
                since,
                version,
                dev,
            } => {
                line.time("since", since)
                    .text("version", version)
                    .flag("dev", dev);
            }
            Event::Unsealed {
                site,
                vaults,
                records,
                quarantined,
            } => {
                line.maybe("site", site.map(SiteId::as_str))
                    .number("vaults", vaults)
                    .number("records", records)
                    .number("quarantined", quarantined);
            }
            Event::Sealed { uid, reason } => {
                uid_of(line, uid).text("reason", reason);
            }
            Event::Ceremony {
                ceremony,
                plan,
                step,
                uid,
            } => {
                line.text("ceremony", ceremony.as_str())
                    .digest("plan", plan);
                write_step(line, step);
                uid_of(line, uid);
            }
            Event::VaultCeremony {
                vault,
                ceremony,
                plan,
                step,
                uid,
            } => {
                line.text("ceremony", ceremony.as_str())
                    .text("vault", vault.as_str())
                    .digest("plan", plan);
                write_step(line, step);
                uid_of(line, uid);
            }
            Event::VaultSealed { vault, uid } => {
                line.text("vault", vault.as_str()).number("uid", uid.into());
            }
            Event::TicketIssued { uid, purpose } => {
                line.text("purpose", purpose).number("uid", uid.into());
            }
            Event::AdminRefused { uid, action, code } => {
                line.text("action", action)
                    .text("code", code.as_str())
                    .number("uid", uid.into());
            }
            Event::ChangeStored {
                kind,
                object,
                change,
                state,
                officers,
                uid,
            } => {
                line.text("kind", kind)
                    .text("object", object)
                    .digest("change", change)
                    .digest("state", state)
                    .list(
                        "officers",
                        officers.iter().take(MAX_ITEMS),
                        |officer, item| {
                            item.digest("key", officer);
                        },
                    )
                    .number("uid", uid.into());
            }
            Event::ChangeRefused {
                kind,
                change,
                code,
                uid,
            } => {
                line.text("kind", kind)
                    .digest("change", change)
                    .text("code", code.as_str())
                    .number("uid", uid.into());
            }
            Event::BackupMade {
                backup,
                generation,
                records,
                carried,
                left_out,
                uid,
            } => {
                line.digest("backup", backup)
                    .number("generation", generation)
                    .number("records", records)
                    .number("carried", carried)
                    .number("left_out", left_out)
                    .number("uid", uid.into());
            }
            Event::Restored {
                backup,
                from,
                life,
                overridden,
                line: at,
                head,
                replaced,
                uid,
            } => {
                line.digest("backup", backup)
                    .number("from", from)
                    .number("life", life)
                    .number("line", at)
                    .digest("head", head)
                    .number("uid", uid.into());
                if let Some((at, head)) = &replaced {
                    line.number("replaced_line", *at)
                        .digest("replaced_head", head);
                }
                if !overridden.is_empty() {
                    line.list(
                        "overridden",
                        overridden.iter().take(MAX_ITEMS),
                        |(life, generation), item| {
                            item.number("life", *life).number("generation", *generation);
                        },
                    );
                }
            }
            Event::OldStoreRemoved { uid } => {
                line.number("uid", uid.into());
            }
            Event::VaultCreated { vault, uid } => {
                line.text("vault", vault.as_str()).number("uid", uid.into());
            }
            Event::VaultVerified {
                vault,
                records,
                uid,
            } => {
                line.text("vault", vault.as_str())
                    .number("records", records)
                    .number("uid", uid.into());
            }
            Event::VaultRotation {
                vault,
                lazy,
                step,
                uid,
            } => {
                line.text("vault", vault.as_str()).flag("lazy", lazy);
                write_rotation(line, step).number("uid", uid.into());
            }
            Event::VaultRepaired {
                vault,
                file,
                kept,
                damaged,
                expected,
                sure,
                uid,
            } => {
                line.text("vault", vault.as_str())
                    .text("file", file)
                    .number("kept", kept)
                    .number("damaged", damaged);
                if let Some(expected) = expected {
                    line.number("expected", expected);
                }
                line.flag("sure", sure).number("uid", uid.into());
            }
            Event::VaultRestored {
                vault,
                backup,
                file,
                records,
                other,
                missing,
                uid,
            } => {
                line.text("vault", vault.as_str()).digest("backup", backup);
                if let Some(file) = file {
                    line.text("file", file);
                }
                line.number("records", records);
                for (name, lost) in [("other", other), ("missing", missing)] {
                    if let Some(lost) = lost {
                        line.number(name, lost);
                    }
                }
                line.number("uid", uid.into());
            }
            Event::DamagedDiscarded { vault, file, uid } => {
                line.text("vault", vault.as_str())
                    .text("file", file)
                    .number("uid", uid.into());
            }
            Event::VaultQuarantined { vault, reason } => {
                line.text("vault", vault.as_str()).text("reason", reason);
            }
            Event::VaultHealth { vault, available } => {
                line.text("vault", vault.as_str())
                    .flag("available", available);
            }
            Event::LastWriteMissing { vault, confirmed } => {
                line.text("vault", vault.as_str())
                    .flag("confirmed", confirmed.is_some());
                uid_of(line, confirmed);
            }
            Event::VaultFilesUnknown { files } => {
                line.number("files", files);
            }
            Event::StoreBehindLog {
                vault,
                logged,
                next,
            } => {
                line.text("vault", vault.as_str())
                    .number("logged", logged)
                    .number("next", next);
            }
            Event::LogForged { vault, row } => {
                line.text("vault", vault.as_str()).number("row", row);
            }
            Event::ReceiptGiven { generation, uid } => {
                line.number("generation", generation)
                    .number("uid", uid.into());
            }
            Event::ReceiptIgnored { reason, uid } => {
                line.text("reason", reason).number("uid", uid.into());
            }
            Event::TpmBound { index, uid } => {
                line.number("index", index.into()).number("uid", uid.into());
            }
            Event::StoreRefused {
                reason,
                generation,
                shown,
                uid,
            } => {
                line.text("reason", reason)
                    .number("generation", generation)
                    .number("shown", shown);
                uid_of(line, uid);
            }
            Event::CredentialPut {
                vault,
                name,
                owner,
                version,
                kind,
                uid,
            } => {
                line.text("vault", vault.as_str())
                    .text("name", name.as_str())
                    .maybe("owner", owner.map(PrincipalName::as_str))
                    .number("version", version)
                    .text("kind", kind);
                uid_of(line, uid);
            }
            Event::CredentialDeleted {
                vault,
                name,
                owner,
                version,
                uid,
            } => {
                line.text("vault", vault.as_str())
                    .text("name", name.as_str())
                    .maybe("owner", owner.map(PrincipalName::as_str))
                    .number("version", version)
                    .number("uid", uid.into());
            }
            Event::CredentialSuspect {
                call,
                binding,
                version,
            } => {
                line.number("call", call.0)
                    .text("binding", binding.as_str())
                    .number("version", version);
            }
            Event::BundleImported {
                registry,
                namespace,
                name,
                sequence,
                widens,
                uid,
            } => {
                line.digest("registry", registry.digest())
                    .text("namespace", namespace.as_str())
                    .text("name", name.as_str())
                    .number("sequence", sequence)
                    .flag("widens", widens)
                    .number("uid", uid.into());
            }
            Event::BundleRefused {
                reason,
                registry,
                uid,
            } => {
                line.text("reason", reason);
                if let Some(registry) = registry {
                    line.digest("registry", registry.digest());
                }
                line.number("uid", uid.into());
            }
            Event::RegistryDrained { registry } => {
                line.digest("registry", registry.digest());
            }
            Event::CallIntent {
                call,
                principal,
                rev,
                tool,
                access,
                arguments,
                recorded,
            } => {
                line.number("call", call.0)
                    .text("principal", principal.as_str());
                rev_of(line, rev)
                    .text("tool", tool.as_str())
                    .text("access", access.as_str())
                    .hex("arguments", &arguments.0);
                if !recorded.is_empty() {
                    line.list(
                        "recorded",
                        recorded.iter().take(MAX_ITEMS),
                        |argument, item| {
                            item.text("name", argument.name)
                                .text("value", argument.value);
                        },
                    );
                }
            }
            Event::CallOutcome {
                call,
                intent,
                outcome,
            } => {
                line.number("call", call.0)
                    .number("intent", intent)
                    .text("code", outcome.error.map_or("ok", ErrorCode::as_str))
                    .flag("is_error", outcome.is_error)
                    .flag("truncated", outcome.truncated)
                    .number("bytes", outcome.bytes)
                    .number("hits", outcome.hits.into())
                    .number("micros", outcome.micros);
            }
            Event::CallDenied {
                principal,
                module,
                tool,
                code,
            } => {
                line.text("principal", principal.as_str())
                    .text("module", module)
                    .text("tool", tool)
                    .text("code", code.as_str());
            }
            Event::CallsDenied { principal, calls } => {
                line.text("principal", principal.as_str())
                    .number("calls", calls);
            }
            Event::RequestsRefused { uid, requests } | Event::RequestsServed { uid, requests } => {
                uid_of(line, uid).number("requests", requests);
            }
            Event::PeerRefused {
                listener,
                uid,
                peers,
            } => {
                uid_of(line.text("listener", listener), uid).number("peers", peers);
            }
            Event::RedactionHit {
                call,
                rev,
                hits,
                stage,
            } => {
                rev_of(line.number("call", call.0), rev)
                    .number("hits", hits.into())
                    .text("stage", stage);
            }
            Event::ModuleQuarantined { rev, reason } => {
                rev_of(line, rev).text("reason", reason);
            }
            Event::RunnerConnected {
                role,
                pid,
                uid,
                version,
            } => {
                line.text("role", role.as_str())
                    .number("pid", pid.into())
                    .number("uid", uid.into())
                    .number("version", version.into());
            }
            Event::RunnerLost {
                role,
                reason,
                calls,
            } => {
                line.text("role", role.as_str())
                    .text("reason", reason)
                    .number("calls", calls);
            }
            Event::RunnerRefused { role, uid, reason } => {
                line.text("role", role)
                    .number("uid", uid.into())
                    .text("reason", reason);
            }
            Event::Recovered { length, digest } => {
                line.number("length", length).digest("digest", digest);
            }
            Event::DiskAlarm {
                free_bytes,
                limit_bytes,
                raised,
            } => {
                line.number("free_bytes", free_bytes)
                    .number("limit_bytes", limit_bytes)
                    .flag("raised", raised);
            }
            Event::AuditLost { calls } => {
                line.number("calls", calls);
            }
            Event::ExportConfirmed {
                first,
                through,
                digest,
                exporter,
                uid,
            } => {
                line.number("first", first)
                    .number("through", through)
                    .digest("digest", digest)
                    .number("exporter", exporter.into())
                    .number("uid", uid.into());
            }
            Event::AuditExported {
                first,
                through,
                head,
                digest,
                uid,
            } => {
                line.number("first", first)
                    .number("through", through)
                    .digest("head", head)
                    .digest("digest", digest)
                    .number("uid", uid.into());
            }
            Event::AuditRemoved {
                first_segment,
                last_segment,
            } => {
                line.number("first_segment", first_segment)
                    .number("last_segment", last_segment);
            }
            Event::AuditMatched {
                arguments,
                matched,
                uid,
            } => {
                line.hex("arguments", &arguments.0)
                    .flag("matched", matched)
                    .number("uid", uid.into());
            }
            Event::Boot {
                since,
                what,
                code,
                uid,
                repeats,
            } => {
                line.time("since", since)
                    .text("what", what)
                    .text("code", code);
                uid_of(line, uid).number("repeats", repeats);
            }
        }
    }
}

fn uid_of<'f, 'b>(line: &'f mut Fields<'b>, uid: Option<u32>) -> &'f mut Fields<'b> {
    match uid {
        Some(uid) => line.number("uid", uid.into()),
        None => line,
    }
}

fn rev_of<'f, 'b>(line: &'f mut Fields<'b>, rev: &ModuleRev) -> &'f mut Fields<'b> {
    line.digest("registry", rev.registry.digest())
        .text("module", rev.module.as_str())
}

fn write_rotation<'f, 'b>(line: &'f mut Fields<'b>, step: RotationStep<'_>) -> &'f mut Fields<'b> {
    match step {
        RotationStep::Begun { records } => line.text("step", "begun").number("records", records),
        RotationStep::Completed { id, records } => line
            .text("step", "completed")
            .maybe("id", id)
            .number("records", records),
        RotationStep::Failed { reason } => line.text("step", "failed").text("reason", reason),
    }
}

fn write_step(line: &mut Fields<'_>, step: Step) {
    match step {
        Step::Planned => line.text("step", "planned"),
        Step::ShareAccepted { given, needed } => line
            .text("step", "share_accepted")
            .number("given", given.into())
            .number("needed", needed.into()),
        Step::Delivered { generation } => line
            .text("step", "delivered")
            .number("generation", generation.into()),
        Step::Proven { given, needed } => line
            .text("step", "proven")
            .number("given", given.into())
            .number("needed", needed.into()),
        Step::ShareRefused { reason } => line.text("step", "share_refused").text("reason", reason),
        Step::Completed => line.text("step", "completed"),
        Step::Cancelled => line.text("step", "cancelled"),
        Step::Expired => line.text("step", "expired"),
        Step::Failed { reason } => line.text("step", "failed").text("reason", reason),
    };
}
