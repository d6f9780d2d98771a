//! Members and sessions.

use std::time::Duration;

use jiff::Timestamp;
use redis::{FromRedisValue, Pipeline, Value, cmd};

use super::Desk;
use super::answers::{self, strange, unreadable};
use super::link::{Again, Failure};
use crate::policy::AccountId;
use crate::store::StoreError;
use crate::store::people::{Member, MemberId, MemberWritten, Session, SessionDigest, text};
use crate::store::trail::Note;

/// A write of a member.
pub(super) struct MemberWrite<'w> {
    pub(super) id: &'w MemberId,
    /// What it builds on; `None`: the member is new.
    pub(super) built_on: Option<u64>,
    /// What the member is since; `None`: it goes.
    pub(super) member: Option<&'w Member>,
}

impl Desk {
    pub(super) async fn read_members(&self, account: &AccountId) -> Result<Vec<Member>, StoreError> {
        let key = self.keys.members(account);
        let mut all = cmd("HGETALL");
        all.arg(&key);
        let answer =
            self.link.ask(all, Again::Yes).await.map_err(|failure| failure.into_store_error(&key))?;
        let fields = Vec::<(Vec<u8>, Vec<u8>)>::from_redis_value(answer).map_err(|_| strange("HGETALL"))?;
        let mut members = Vec::with_capacity(fields.len());
        for (id, kept) in fields {
            let id = String::from_utf8_lossy(&id);
            match Member::parse(&id, &kept) {
                Ok(member) => members.push(member),
                Err(why) => {
                    tracing::error!(%account, member = %id, why, "a member cannot be read; it is left out");
                }
            }
        }
        members.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(members)
    }

    pub(super) async fn read_member(
        &self,
        account: &AccountId,
        id: &MemberId,
    ) -> Result<Option<Member>, StoreError> {
        let key = self.keys.members(account);
        let mut get = cmd("HGET");
        get.arg(&key).arg(id.as_str());
        let answer =
            self.link.ask(get, Again::Yes).await.map_err(|failure| failure.into_store_error(&key))?;
        let kept = Option::<Vec<u8>>::from_redis_value(answer).map_err(|_| strange("HGET"))?;
        let parse = |kept: Vec<u8>| Member::parse(id.as_str(), &kept);
        kept.map(parse).transpose().map_err(|why| unreadable(&key, &format!("{id}: {why}")))
    }

    pub(super) async fn write_member(
        &self,
        account: &AccountId,
        write: MemberWrite<'_>,
        note: &Note,
    ) -> Result<MemberWritten, StoreError> {
        let MemberWrite { id, built_on, member } = write;
        let version = built_on.unwrap_or(0).saturating_add(1);
        let trail = [self.keys.trail(account), self.keys.trail_of(account, &note.target)];
        let keys = [&[self.keys.members(account)], trail.as_slice()].concat();
        let args = vec![
            id.to_string(),
            built_on.map(|version| version.to_string()).unwrap_or_default(),
            version.to_string(),
            member.map(|member| member.to_text(version)).unwrap_or_default(),
            member.map(|member| text::lower(&member.name)).unwrap_or_default(),
            self.clock_text(),
            note.to_text(),
        ];
        answers::member_written(self.run(&self.scripts.members, &keys, args, Again::No).await?)
    }

    pub(super) async fn write_session(
        &self,
        account: &AccountId,
        digest: &SessionDigest,
        session: &Session,
        life: Duration,
    ) -> Result<(), StoreError> {
        let args = vec![self.clock_text(), life.as_micros().to_string(), session.to_text()];
        let keys = [self.keys.session(account, digest)];
        answers::done(self.run(&self.scripts.session, &keys, args, Again::Yes).await?, "session.lua")
    }

    /// The key may live a little longer than the session, by another clock: what it says of its end counts.
    pub(super) async fn read_session(
        &self,
        account: &AccountId,
        digest: &SessionDigest,
    ) -> Result<Option<Session>, StoreError> {
        let key = self.keys.session(account, digest);
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("TIME").cmd("GET").arg(&key).ignore_errors();
        let failed = |failure: Failure| failure.into_store_error("of a session");
        let answers = self.link.send(&pipeline, Again::Yes).await.map_err(failed)?;
        let Ok([time, kept]) = <[_; 2]>::try_from(answers) else { return Err(strange("GET")) };
        let now = self.time(time.map_err(|error| failed(error.into()))?)?;
        let kept = match kept.map_err(|error| failed(error.into()))? {
            Value::Nil => return Ok(None),
            kept => String::from_redis_value(kept).ok(),
        };
        let parse = |kept: String| {
            let (ends, session) = kept.split_once('|')?;
            Some((Timestamp::from_microsecond(ends.parse().ok()?).ok()?, Session::parse(session)?))
        };
        let kept = kept.and_then(parse);
        let (ends, session) = kept.ok_or_else(|| unreadable("of a session", &"it is not of its form"))?;
        Ok(Some(session).filter(|_| now < ends))
    }

    pub(super) async fn drop_session(
        &self,
        account: &AccountId,
        digest: &SessionDigest,
    ) -> Result<(), StoreError> {
        let mut del = cmd("DEL");
        del.arg(self.keys.session(account, digest));
        let failed = |failure: Failure| failure.into_store_error("of a session");
        self.link.ask(del, Again::Yes).await.map_err(failed).map(drop)
    }
}
