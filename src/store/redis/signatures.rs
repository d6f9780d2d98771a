//! Secrets that sign, and signatures that were used.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::cmd;

use super::Desk;
use super::answers;
use super::link::{Again, Failure};
use crate::policy::signature::SigningSecret;
use crate::policy::{AccountId, TokenId};
use crate::store::record::{Fields, TokenRecord};
use crate::store::seal::SealError;
use crate::store::trail::Note;
use crate::store::{AccountSecrets, Listed, Remembered, Sighting, StoreError, Written};

/// Says of a set of secret tokens that all are in it.
const COMPLETE: &str = "complete";
/// How many tokens are read at once while the set is made.
const PAGE: usize = 500;

impl Desk {
    pub(super) async fn run_put_signing_secret(
        &self,
        account: &AccountId,
        id: &TokenId,
        version: u64,
        secret: &SigningSecret,
        note: &Note,
    ) -> Result<Written, StoreError> {
        let sealer = self.sealer.as_ref().ok_or(SealError::NoMasterKey)?;
        let sealed = sealer.seal_signing(id, secret)?;
        let edits = Fields::from([("signing".to_owned(), sealed)]);
        self.run_put(account, Some(id), version, edits, note).await
    }

    pub(super) async fn read_account_secrets(
        &self,
        account: &AccountId,
    ) -> Result<AccountSecrets, StoreError> {
        let key = self.keys.secrets(account);
        let mut members = cmd("SMEMBERS");
        members.arg(&key);
        let answer = self.link.ask(members, Again::Yes).await;
        let answer = answer.map_err(|failure| failure.into_store_error(&key))?;
        let members = answers::texts(answer, "SMEMBERS")?;
        let complete = members.iter().any(|member| member == COMPLETE);
        let mut ids: BTreeSet<TokenId> = members.iter().filter_map(|text| TokenId::parse(text)).collect();
        if !complete {
            ids.extend(self.find_secret_tokens(account).await?);
        }
        let ids: Vec<TokenId> = ids.into_iter().collect();
        let keys: Vec<_> = ids.iter().map(|id| self.keys.token(account, id)).collect();
        let (now, records) = self.read(&keys).await?;
        let mut all = AccountSecrets::default();
        for ((id, key), answer) in ids.iter().zip(&keys).zip(records) {
            let answer = answer.map_err(|error| Failure::from(error).into_store_error(key));
            let fields = match answer.and_then(|answer| answers::fields(answer, key)) {
                Ok(fields) => fields.unwrap_or_default(),
                Err(StoreError::Unreadable { .. }) => continue,
                Err(error) => return Err(error),
            };
            if let Ok(record) = TokenRecord::parse(&fields, account, id) {
                record.sign_for_account(self.sealer.as_ref(), now, &mut all);
            }
        }
        Ok(all)
    }

    /// Goes through all tokens, since the account is from before there was a set of the secret ones, and makes the set. Those
    /// that are made meanwhile come into it by themselves.
    async fn find_secret_tokens(&self, account: &AccountId) -> Result<Vec<TokenId>, StoreError> {
        let mut found = Vec::new();
        let mut after: Option<TokenId> = None;
        loop {
            let page = self.list(account, after.as_ref(), PAGE).await?;
            let ids = page.iter().map(|listed| match listed {
                // A record that cannot be read now may be mended: it is looked at each time.
                Listed::Unreadable { id, .. } => (id, true),
                Listed::Token(token) => {
                    (&token.policy.id, token.policy.kind == crate::policy::TokenKind::Secret)
                }
            });
            let mut last = None;
            for (id, is_secret) in ids {
                found.extend(is_secret.then(|| id.clone()));
                last = Some(id.clone());
            }
            if page.len() < PAGE {
                break;
            }
            after = last;
        }
        let mut add = cmd("SADD");
        add.arg(self.keys.secrets(account)).arg(COMPLETE);
        for id in &found {
            add.arg(id.as_str());
        }
        self.ask(add, Again::Yes).await?;
        Ok(found)
    }

    pub(super) async fn run_remember(
        &self,
        account: &AccountId,
        sightings: &[Sighting],
    ) -> Result<Vec<Remembered>, StoreError> {
        let mut seconds: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (at, sighting) in sightings.iter().enumerate() {
            seconds.entry(sighting.dated).or_default().push(at);
        }
        let most = (self.retention.signatures / 16).max(1).to_string();
        let call = |(second, places): (&i64, &Vec<usize>)| {
            let of_second = || places.iter().filter_map(|at| sightings.get(*at));
            let life = of_second().map(|sighting| sighting.life).max().unwrap_or(Duration::ZERO);
            let mut args = vec![self.clock_text(), life.as_micros().to_string(), most.clone()];
            for sighting in of_second() {
                args.extend([hex::encode(sighting.fingerprint.0), format!("{:x}", sighting.nonce)]);
            }
            self.scripts.remember.call(&[self.keys.signatures(account, *second)], args)
        };
        let calls = seconds.iter().map(call).collect();
        let answers = match self.link.run_anywhere(&self.scripts.remember, calls, Again::Yes).await {
            Ok(answers) => answers,
            // Redis has no more memory and is not allowed to forget: the caller is told what that means for signatures.
            Err(Failure::Redis(error)) if error.code() == Some("OOM") => {
                return Ok(vec![Remembered::Full; sightings.len()]);
            }
            Err(failure) => return Err(failure.into_store_error("of signatures")),
        };
        let mut remembered = vec![Remembered::Full; sightings.len()];
        for (places, answer) in seconds.values().zip(answers) {
            let answers = answers::remembered(answer, places.len())?;
            for (at, answer) in places.iter().zip(answers) {
                if let Some(place) = remembered.get_mut(*at) {
                    *place = answer;
                }
            }
        }
        Ok(remembered)
    }
}
