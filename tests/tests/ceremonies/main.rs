//! The ceremonies of an open store, against a real mcpistd: who opens the store before, between and afterwards.
#![allow(clippy::unwrap_used)]

mod line;
mod rekey;
mod rotate;
mod vault;

use std::ops::Deref;

use mcpist_quorum::{Identity, open_share_file};
use mcpist_secret::Secret;
use mcpist_tests::appliance::Appliance;
use serde_json::{Value, json};

/// An open store of 2 of 3, and the people who are to get new shares.
struct Site {
    appliance: Appliance,
    people: Vec<Identity>,
}

impl Deref for Site {
    type Target = Appliance;

    fn deref(&self) -> &Appliance {
        &self.appliance
    }
}

impl Site {
    fn open() -> Site {
        let mut appliance = Appliance::start();
        appliance.init();
        appliance.unseal();
        let site = Site {
            appliance,
            people: (0..3).map(|_| Identity::generate()).collect(),
        };
        site.ask("POST", "/v1/vaults", Some(&json!({ "name": "main" })));
        site.put_credential("kept", "bearer", "a-credential-that-stays");
        site
    }

    /// Begins to give the store to the three people, two of whom open it.
    fn begin_rekey(&self, rotate_root: bool) -> Value {
        let holder = |(at, identity): (usize, &Identity)| json!({ "label": format!("new-{}", at + 1), "recipient": identity.recipient() });
        let holders: Vec<Value> = self.people.iter().enumerate().map(holder).collect();
        let request =
            json!({ "rekey": { "threshold": 2, "holders": holders, "rotate_root": rotate_root } });
        self.ask("POST", "/v1/ceremony", Some(&request))
    }

    /// Gives a share under the open ceremony's plan.
    fn give_to_ceremony(&self, share: &Secret) -> Value {
        let plan = self.ask("GET", "/v1/ceremony", None)["digest"].clone();
        self.give_under(&plan, share)
    }

    fn give_under(&self, plan: &Value, share: &Secret) -> Value {
        let ticket = self.ticket(&json!({ "share": { "plan": plan } }));
        self.bring(&ticket, share)["share"].clone()
    }

    /// Two current holders consent: the new shares.
    fn consent(&self) -> Vec<Secret> {
        let first = self.give_to_ceremony(&self.share(1));
        assert_eq!(first["pending"]["given"], 1, "{first}");
        let delivered = self.give_to_ceremony(&self.share(2));
        assert_eq!(
            delivered["delivered"]["progress"]["given"], 0,
            "{delivered}"
        );
        self.open_letters(&delivered["delivered"]["shares"])
    }

    fn open_letters(&self, shares: &Value) -> Vec<Secret> {
        let letters = shares.as_array().unwrap();
        assert_eq!(letters.len(), self.people.len());
        let letters = self.people.iter().zip(letters);
        let open = |(identity, letter): (&Identity, &Value)| {
            let age = letter["age"].as_str().unwrap().as_bytes();
            open_share_file(identity, age).unwrap().to_text().unwrap()
        };
        letters.map(open).collect()
    }

    /// The whole rekey: the new shares.
    fn rekey(&self, rotate_root: bool) -> Vec<Secret> {
        self.begin_rekey(rotate_root);
        let new = self.consent();
        let proven = self.give_to_ceremony(&new[2]);
        assert_eq!(proven["proven"]["given"], 1, "{proven}");
        let done = self.give_to_ceremony(&new[0]);
        assert_eq!(done["completed"]["generation"], 2, "{done}");
        new
    }

    fn state(&self) -> Value {
        self.ask("GET", "/v1/status", None)["state"].clone()
    }

    /// Opens the sealed store with two shares; what it held is there.
    fn opens_with(&self, first: &Secret, second: &Secret) {
        assert_eq!(self.state(), "sealed");
        let pending = self.give(first);
        assert_eq!(pending["share"]["pending"]["given"], 1, "{pending}");
        let opened = self.give(second);
        assert_eq!(
            opened["share"]["opened"]["quarantined"],
            json!([]),
            "{opened}"
        );
        let kept = self.ask("GET", "/v1/vaults/main/credentials", None);
        let mut kept_ones = kept["credentials"].as_array().unwrap().iter();
        assert!(kept_ones.any(|c| c["name"] == "kept"), "{kept}");
    }

    /// Why a sealed store does not take a share.
    fn refuses(&self, share: &Secret) -> Value {
        let answer = self.give(share);
        answer["share"]["refused"]["reason"].clone()
    }

    /// The steps of ceremonies that the log of an open store tells, in order.
    fn steps(&self, ceremony: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let folder = self.folder().join("state/audit");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|f| f.unwrap().path())
            .collect();
        files.sort();
        for file in files {
            lines.extend(
                std::fs::read_to_string(file)
                    .unwrap_or_default()
                    .lines()
                    .map(str::to_owned),
            );
        }
        let of = |line: &String| {
            let line: Value = serde_json::from_str(line.trim_matches('\0')).ok()?;
            let body = if line["event"].is_null() {
                &line["body"]
            } else {
                &line
            };
            let is = body["event"] == "ceremony" && body["ceremony"] == ceremony;
            is.then(|| body["step"].as_str().unwrap().to_owned())
        };
        lines.iter().filter_map(of).collect()
    }
}
