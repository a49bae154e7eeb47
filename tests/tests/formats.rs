//! docs/FORMATS.md, read back: every example there is what the crates write today, or what they read.
//!
//! A fenced block whose info string has two words, such as `hex vault-head`, is an example by that name. Where a
//! public function writes the format from fixed inputs, its output is compared with the block; where it draws
//! randomness, the block is read and its fields are compared. The last test counts: no example without a test.
#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use mcpist_bundle::container::{Block, Header, Role as SignAs, signed_message};
use mcpist_bundle::{Root, SigningKey};
use mcpist_core::audit::{
    Anchor, AuditKey, Chain, Checkpoint, Copied, Statement, UnixMs, Verifier, public_key,
};
use mcpist_core::binding::{Binding, Join};
use mcpist_core::change::{Change, Object, PolicyView, State, approval_message};
use mcpist_core::event::Event;
use mcpist_core::grant::Grant;
use mcpist_core::ids::{BindingName, CallId, Digest, ModuleName, ModuleRev, RegistryId, SlotName};
use mcpist_core::manifest::Manifest;
use mcpist_core::principal::PrincipalRecord;
use mcpist_quorum::{
    Act, Buckets, CeremonyRecord, Entry, Generation, Head, Holder, Incarnation, NameHmac,
    OfficerKey, Plan, PlanDigest, RecordAad, RecordTag, SealConfig, SealConfigParts, SetId, Share,
    StoreId, Threshold, derive_kek, open_record, unwrap_key,
};
use mcpist_secret::frame::{Ticket, read_frame, write_frame};
use mcpist_secret::redact::{Fingerprint, RedactKey};
use mcpist_secret::{Key, MemoryError, Secret};
use mcpist_wire::{
    Answer, Bind, CloseCode, DaemonLink, Dropped, Greeting, Load, Request, Requests, Role, runner,
};
use ring::signature::Ed25519KeyPair;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Every example of the page; a test of its name's group stands below.
const EXAMPLES: &[&str] = &[
    "approval-message",
    "audit-checkpoint",
    "audit-lines",
    "audit-segment",
    "buckets-root",
    "bundle-block",
    "bundle-header",
    "bundle-manifest",
    "bundle-root",
    "ceremony-record",
    "change",
    "empty-root",
    "fingerprint",
    "kek",
    "name-hmac",
    "plan-digest",
    "plan-init",
    "plan-unseal",
    "record-aad",
    "seal-config",
    "seal-config-digest",
    "sealed-record",
    "secret-frame",
    "share-digest",
    "share-text",
    "signed-message",
    "signing-key",
    "state",
    "vault-head",
    "vault-head-digest",
    "wire-answer",
    "wire-bind",
    "wire-call",
    "wire-close",
    "wire-drop",
    "wire-hello",
    "wire-lease",
    "wire-load",
    "wire-ping",
    "wire-redact",
    "wire-welcome",
    "wrapped-key",
];

fn examples() -> &'static BTreeMap<String, String> {
    static EXAMPLES: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    EXAMPLES.get_or_init(|| {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/FORMATS.md");
        let text = std::fs::read_to_string(page).unwrap();
        let (mut found, mut open) = (BTreeMap::new(), None);
        for line in text.lines() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(_), Some(_)) => {
                    let (name, body): (Option<String>, String) = open.take().unwrap();
                    if let Some(name) = name {
                        assert!(
                            found.insert(name.clone(), body).is_none(),
                            "two examples are named {name}"
                        );
                    }
                }
                (Some(info), None) => {
                    let name = info.split_once(' ').map(|(_, name)| name.to_owned());
                    open = Some((name, String::new()));
                }
                (None, Some((_, body))) => {
                    body.push_str(line);
                    body.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "the last block of the page is not closed");
        found
    })
}

fn text(name: &str) -> &'static str {
    examples()
        .get(name)
        .unwrap_or_else(|| panic!("docs/FORMATS.md has no example named {name}"))
        .trim_end()
}

fn bytes(name: &str) -> Vec<u8> {
    let digits: String = text(name).split_whitespace().collect();
    hex::decode(&digits).unwrap_or_else(|e| panic!("example {name}: {e}"))
}

/// The example is what was written.
fn shows(name: &str, written: impl AsRef<[u8]>) {
    assert_eq!(
        hex::encode(bytes(name)),
        hex::encode(written),
        "docs/FORMATS.md, example {name}"
    );
}

fn key(byte: u8) -> Key {
    Key::fill(|out| {
        out.fill(byte);
        Ok::<(), MemoryError>(())
    })
    .unwrap()
}

fn signer(seed: u8) -> SigningKey {
    let text = format!("mcpist-signing-key-1 {}", hex::encode([seed; 32]));
    SigningKey::from_throwaway_text(text.as_bytes()).unwrap()
}

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn set() -> SetId {
    SetId::from_bytes([0x22; 16])
}

fn store() -> StoreId {
    "11111111-1111-4111-9111-111111111111".parse().unwrap()
}

fn officers() -> Vec<OfficerKey> {
    let officer = |name: &str, byte| OfficerKey {
        name: name.to_owned(),
        public: [byte; 32],
    };
    vec![officer("Olga", 0x0a), officer("Omar", 0x0b)]
}

// Shares and ceremonies

#[test]
fn a_share_is_its_text() {
    let share = Share::parse(text("share-text").as_bytes()).unwrap();
    assert_eq!(
        (share.set(), share.generation(), share.index()),
        (set(), Generation::FIRST, 2)
    );
    assert_eq!(share.threshold(), Threshold::new(3, 5).unwrap());
    assert_eq!(
        share.to_text().unwrap().expose(),
        text("share-text").as_bytes()
    );
    shows("share-digest", share.digest().as_bytes());
}

#[test]
fn the_key_encryption_key_follows_from_the_split_secret() {
    shows(
        "kek",
        derive_kek(&key(9), set(), Generation::FIRST)
            .unwrap()
            .expose(),
    );
}

fn seal_config(labels: [&str; 2], digests: [&str; 2]) -> SealConfig {
    let holder = |at: usize| Holder {
        label: labels[at].to_owned(),
        recipient: format!("age1recipient{}", at + 1),
        digest: digests[at].parse().unwrap(),
    };
    SealConfig::new(SealConfigParts {
        store: store(),
        set: set(),
        generation: Generation::FIRST,
        threshold: Threshold::new(2, 2).unwrap(),
        holders: vec![holder(0), holder(1)],
        root_digest: [0x33; 32],
        officers: officers(),
        dev: false,
        created: 1_790_000_000,
    })
    .unwrap()
}

#[test]
fn a_seal_config_is_these_bytes() {
    let config = seal_config(
        ["holder-1", "holder-2"],
        [
            "97d22494a8556f1c8881e7d04427c6b5c0946a820f01a8592a4ee2741754de59",
            "80d086e9608cdd09dcd0b854cf6cd0e182540fa28307ea1e99a4669b74b7a154",
        ],
    );
    shows("seal-config", config.to_bytes());
    shows("seal-config-digest", config.digest().as_bytes());
    assert_eq!(
        SealConfig::from_bytes(&bytes("seal-config")).unwrap(),
        config
    );
}

#[test]
fn plans_read_back() {
    let plan = Plan::from_bytes(&bytes("plan-unseal")).unwrap();
    assert_eq!(
        (plan.nonce(), plan.store(), plan.set()),
        (&[0x66; 16], store(), set())
    );
    assert!(matches!(plan.act(), Act::Unseal(config) if config.as_bytes() == &[0x77; 32]));
    shows("plan-unseal", plan.to_bytes());
    shows("plan-digest", plan.digest().as_bytes());
    let plan = Plan::from_bytes(&bytes("plan-init")).unwrap();
    let Act::Init(terms) = plan.act() else {
        panic!("the plan is one of init")
    };
    assert_eq!(
        (terms.officers.clone(), terms.root_digest, terms.dev),
        (officers(), [0x33; 32], true)
    );
    assert_eq!(
        terms
            .holders
            .iter()
            .map(|h| h.label.as_str())
            .collect::<Vec<_>>(),
        ["Ada", "Bob"]
    );
    shows("plan-init", plan.to_bytes());
}

#[test]
fn a_ceremony_record_is_these_bytes() {
    let record = CeremonyRecord::from_bytes(&bytes("ceremony-record")).unwrap();
    shows("ceremony-record", record.to_bytes());
    let config = seal_config(["Ada", "Bob"], [&"cc".repeat(32), &"dd".repeat(32)]);
    let plan = PlanDigest::from_bytes([0x77; 32]);
    let mut made = CeremonyRecord::new(&config, plan, [0x99; 32], [0xaa; 32]).to_bytes();
    // The example's config digest is not one of a config.
    made[89..121].fill(0x88);
    shows("ceremony-record", made);
}

// The store

#[test]
fn a_sealed_record_opens_in_its_place_alone() {
    let hosts = ["gitlab.example".to_owned(), "10.0.0.7:8443".to_owned()];
    let aad = RecordAad {
        store: store(),
        vault: "ops",
        epoch: [0x44; 16],
        name: "gitlab",
        owner: "",
        version: 3,
        kind: "bearer",
        expiry: 0,
        hosts: &hosts,
    };
    shows("record-aad", aad.to_bytes().unwrap());
    let sealed = bytes("sealed-record");
    assert_eq!(
        open_record(&key(7), &aad, &sealed).unwrap().expose(),
        b"glpat-example"
    );
    assert!(open_record(&key(7), &RecordAad { version: 4, ..aad }, &sealed).is_err());
    let tag = RecordTag::parse(&sealed).unwrap();
    assert_eq!(
        (&tag.commitment[..], &tag.tag[..]),
        (&sealed[45..77], &sealed[sealed.len() - 16..])
    );
}

#[test]
fn a_wrapped_key_unwraps_for_its_purpose_alone() {
    let wrapped = bytes("wrapped-key");
    assert_eq!(
        unwrap_key(&key(1), "root", b"config", &wrapped)
            .unwrap()
            .expose(),
        &[9; 32]
    );
    assert!(unwrap_key(&key(1), "vault", b"config", &wrapped).is_err());
}

#[test]
fn the_root_of_a_vault_follows_from_its_records() {
    let name = NameHmac::new(&key(6), "ops", "", "gitlab");
    shows("name-hmac", name.as_bytes());
    let mut buckets = Buckets::new("ops");
    shows("empty-root", buckets.root(&key(5)));
    let record = RecordTag {
        commitment: [0x77; 32],
        tag: [0x77; 16],
    };
    buckets.set(Entry::new(&name, 3, &record));
    shows("buckets-root", buckets.root(&key(5)));
}

#[test]
fn a_head_is_these_bytes() {
    let head = Head {
        incarnation: Incarnation {
            counter: 2,
            id: [1; 16],
            parent: [2; 16],
        },
        generation: 3,
        count: 4,
        root: [5; 32],
    };
    shows("vault-head", head.to_bytes());
    shows("vault-head-digest", head.digest());
}

// Secrets in

#[test]
fn a_frame_is_ticket_length_payload() {
    let mut written = Vec::new();
    let payload = Secret::copy_of(b"s3cr3t").unwrap();
    write_frame(&mut written, &Ticket::from_bytes([0x11; 32]), &payload).unwrap();
    shows("secret-frame", written);
    let (ticket, payload) = read_frame(&mut &bytes("secret-frame")[..]).unwrap();
    assert!(ticket == Ticket::from_bytes([0x11; 32]) && payload.expose() == b"s3cr3t");
}

#[test]
fn a_fingerprint_is_these_bytes() {
    let redact = RedactKey::new(key(0x0c)).unwrap();
    shows(
        "fingerprint",
        redact.fingerprint(b"s3cr3t-token").unwrap().encode(),
    );
    assert_eq!(
        Fingerprint::decode(&bytes("fingerprint")).unwrap().encode(),
        bytes("fingerprint")
    );
}

// Bundles

#[test]
fn a_container_begins_with_these_bytes() {
    let header = Header::new(1, 2, 0).unwrap();
    shows("bundle-header", header.to_bytes());
    assert_eq!(
        Header::parse(bytes("bundle-header").first_chunk().unwrap(), 24 + 100 + 2).unwrap(),
        header
    );
    shows("signed-message", signed_message(SignAs::Publisher, b"{}"));
    let block = signer(1).block(SignAs::Publisher, b"{}").unwrap();
    shows("bundle-block", block.to_bytes());
    assert_eq!(Block::parse(&bytes("bundle-block"), 0).unwrap(), block);
    assert_eq!(
        signer(1).to_throwaway_text().unwrap().expose(),
        text("signing-key").as_bytes()
    );
}

#[test]
fn a_manifest_and_a_root_parse() {
    let manifest = Manifest::parse(text("bundle-manifest").as_bytes()).unwrap();
    assert_eq!(
        (
            manifest.sequence,
            manifest.modules.len(),
            manifest.blobs.len()
        ),
        (7, 1, 1)
    );
    assert_eq!(
        manifest.blobs[0].digest,
        Digest::of(b"{\"type\":\"object\"}")
    );
    assert_eq!(
        manifest.blobs[0].length,
        b"{\"type\":\"object\"}".len() as u64
    );
    let root = Root::parse(text("bundle-root").as_bytes()).unwrap();
    assert_eq!(root.site().as_str(), manifest.audience[0].as_str());
    assert!(root.delegates(&manifest.namespace, &signer(1).id()));
}

// Changes of the policy

/// A policy in which the changed object has version 5 and nothing else exists.
struct Policy(Object);

impl PolicyView for Policy {
    fn store(&self) -> [u8; 16] {
        [7; 16]
    }
    fn version(&self, object: &Object) -> Option<u64> {
        (*object == self.0).then_some(5)
    }
    fn requester(&self) -> Option<u32> {
        None
    }
    fn principals(&self) -> impl Iterator<Item = &PrincipalRecord> {
        [].iter()
    }
    fn grants(&self) -> impl Iterator<Item = &Grant> {
        [].iter()
    }
    fn binding(&self, _: &BindingName) -> Option<&Binding> {
        None
    }
    fn join(&self, _: &RegistryId, _: &ModuleName, _: &SlotName) -> Option<&Join> {
        None
    }
    fn manifest(&self, _: &RegistryId) -> Option<&Manifest> {
        None
    }
    fn time_floor(&self) -> u64 {
        0
    }
    fn active(&self) -> impl Iterator<Item = &Manifest> {
        [].iter()
    }
}

#[test]
fn a_change_its_state_and_the_message_that_officers_sign() {
    let change: Change = serde_json::from_value(serde_json::json!({"grant-put": {
        "name": "ops-read-db", "subject": {"group": "ops"}, "module": {"named": "db"},
        "tools": {"named": ["get", "list"]}, "access": "read",
    }}))
    .unwrap();
    shows("change", change.to_bytes());
    let state = State::of(&change, &Policy(change.object()));
    assert_eq!(state.digest(), Digest::of(&bytes("state")));
    shows(
        "approval-message",
        approval_message(&change.digest(), &state.digest()),
    );
}

// The audit log

fn first_key() -> AuditKey {
    public_key(&pair(1))
}

/// A segment line, an event and the checkpoint over both.
fn audit_log() -> (Vec<u8>, Checkpoint, Chain) {
    let (mut log, mut chain) = (Vec::new(), Chain::new(Anchor::genesis(first_key())));
    chain.append_segment(UnixMs(1_700_000_000_000), 0, &Copied::new(), &mut log);
    chain.append(
        UnixMs(1_700_000_000_007),
        &Event::PeerRefused {
            listener: "mcp.socket",
            uid: Some(1000),
        },
        &mut log,
    );
    let anchor = *chain.anchor();
    let statement = Statement {
        number: anchor.checkpoint + 1,
        count: anchor.seq,
        head: anchor.head,
        previous: anchor.checkpoint_digest,
        next_key: public_key(&pair(2)),
        time: UnixMs(1_700_000_000_123),
    };
    let checkpoint = statement.sign(&pair(1));
    chain.append_checkpoint(&checkpoint, &mut log);
    (log, checkpoint, chain)
}

#[test]
fn an_audit_log_is_these_lines() {
    let (log, checkpoint, mut chain) = audit_log();
    assert_eq!(
        text("audit-lines"),
        std::str::from_utf8(&log).unwrap().trim_end()
    );
    let mut next = Vec::new();
    let copied = Copied::from([("system".to_owned(), 3)]);
    chain.append_segment(UnixMs(1_700_000_000_200), 1, &copied, &mut next);
    assert_eq!(
        text("audit-segment"),
        std::str::from_utf8(&next).unwrap().trim_end()
    );
    shows("audit-checkpoint", checkpoint.to_bytes());
    let read = Checkpoint::from_bytes(&bytes("audit-checkpoint")).unwrap();
    assert!(read.is_signed_by(&first_key()));
    let mut verifier = Verifier::new(first_key());
    assert!(verifier.feed(format!("{}\n", text("audit-lines")).as_bytes()));
    let report = verifier.finish();
    assert_eq!(
        (report.problem, report.lines, report.checkpoints),
        (None, 3, 1)
    );
}

// The wire

const PID: u32 = 4242;

/// Both ends of a link by hand: `near` is the test's, the other was given to the crate.
async fn daemon_side() -> (UnixStream, DaemonLink) {
    let (mut near, far) = UnixStream::pair().unwrap();
    near.write_all(&bytes("wire-hello")).await.unwrap();
    let greeting = Greeting::accept(far).await.unwrap();
    assert_eq!(
        (
            greeting.hello().role,
            greeting.hello().pid,
            greeting.version()
        ),
        (Role::Run, PID, 1)
    );
    let link = greeting
        .welcome(&RedactKey::new(key(0x0c)).unwrap())
        .unwrap();
    comes(&mut near, "wire-welcome").await;
    (near, link)
}

async fn runner_side() -> (UnixStream, Requests) {
    let (mut near, far) = UnixStream::pair().unwrap();
    near.write_all(&bytes("wire-welcome")).await.unwrap();
    let (welcome, requests) = runner::connect(far, Role::Run, PID).await.unwrap();
    assert!(welcome.version == 1 && welcome.key.expose() == &[0x0c; 32]);
    comes(&mut near, "wire-hello").await;
    (near, requests)
}

/// The next bytes from the crate's end are the example.
async fn comes(near: &mut UnixStream, name: &str) {
    let mut got = vec![0; 16];
    near.read_exact(&mut got).await.unwrap();
    let length = u32::from_be_bytes(*got.first_chunk().unwrap());
    got.resize(16 + length as usize, 0);
    near.read_exact(&mut got[16..]).await.unwrap();
    shows(name, got);
}

fn rev() -> ModuleRev {
    ModuleRev {
        registry: RegistryId::of_manifest(b"{}"),
        module: ModuleName::parse("gitlab").unwrap(),
    }
}

fn binding() -> Binding {
    serde_json::from_value(serde_json::json!({
        "name": "gitlab-ro", "vault": "ops", "credential": "gitlab", "scheme": "http", "host": "gitlab.example",
        "port": 80, "path_prefix": "/api", "methods": ["GET"], "trust": "none", "inject": "bearer",
        "allow_local": false,
    }))
    .unwrap()
}

#[tokio::test]
async fn what_the_daemon_tells_a_runner() {
    let (mut near, link) = daemon_side().await;
    link.load(&Load {
        rev: rev(),
        manifest: b"{}".to_vec().into(),
    })
    .unwrap();
    comes(&mut near, "wire-load").await;
    link.bind(&Bind {
        version: 3,
        binding: binding(),
    })
    .unwrap();
    comes(&mut near, "wire-bind").await;
    link.redact(
        1,
        &RedactKey::new(key(0x0c))
            .unwrap()
            .fingerprint(b"s3cr3t-token")
            .unwrap(),
    )
    .unwrap();
    comes(&mut near, "wire-redact").await;
    link.drop(&Dropped::Fingerprint(1)).unwrap();
    comes(&mut near, "wire-drop").await;
    link.close(CloseCode::Stopping);
    comes(&mut near, "wire-close").await;
}

#[tokio::test]
async fn a_call_with_its_lease_and_its_answer() {
    let (mut near, mut requests) = runner_side().await;
    near.write_all(&bytes("wire-lease")).await.unwrap();
    near.write_all(&bytes("wire-call")).await.unwrap();
    let Request::Call(call, responder) = requests.next().await.unwrap() else {
        panic!("a call was sent")
    };
    assert_eq!(
        (call.call(), call.rev(), call.tool().as_str()),
        (CallId(7), &rev(), "get_issue")
    );
    assert_eq!(
        (call.deadline().as_millis(), call.client_bytes()),
        (10_000, 65_536)
    );
    assert_eq!(&call.arguments()[..], br#"{"id":12}"#);
    let lease = call.lease(&SlotName::parse("api").unwrap()).unwrap();
    assert_eq!(
        (
            lease.binding().as_str(),
            lease.version(),
            lease.secret().expose()
        ),
        ("gitlab-ro", 3, &b"s3cr3t-token"[..])
    );
    responder
        .answer(Answer {
            content: b"[]".to_vec(),
            structured: Some(b"{}".to_vec()),
            hits: 1,
            ..Answer::default()
        })
        .await;
    comes(&mut near, "wire-answer").await;
    near.write_all(&bytes("wire-ping")).await.unwrap();
    let mut pong = bytes("wire-ping");
    pong[4] += 1;
    let reading = async {
        let mut got = vec![0; 16];
        near.read_exact(&mut got).await.unwrap();
        got
    };
    tokio::select! {
        got = reading => assert_eq!(got, pong),
        ended = requests.next() => panic!("nothing was asked: {:?}", ended.err()),
    }
}

// The page itself

#[test]
fn every_example_of_the_page_has_a_test() {
    let found: Vec<&str> = examples().keys().map(String::as_str).collect();
    assert_eq!(found, EXAMPLES);
}

/// Source files that the pages name, in back quotes, from the workspace's root.
#[test]
fn every_source_file_that_the_pages_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let pages = [
        "README.md",
        "docs/ARCHITECTURE.md",
        "docs/FORMATS.md",
        "docs/THREAT_MODEL.md",
    ];
    let mut named = 0;
    for page in pages {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        let folders = ["daemon/", "sealer/", "modules/", "tests/"];
        let is_source =
            |word: &&str| word.ends_with(".rs") && folders.iter().any(|f| word.starts_with(f));
        for path in text.split('`').filter(is_source) {
            assert!(
                root.join(path).is_file(),
                "{page} names {path}, which is not there"
            );
            named += 1;
        }
    }
    assert!(
        named > 30,
        "only {named} files are named: the pages are read wrongly"
    );
}
