//! The steps about members and sessions.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use redb::ReadableTable;

use super::super::super::people::text::{Head, lower};
use super::super::super::people::{Member, MemberId, MemberWritten, Session, SessionDigest};
use super::super::super::trail::Note;
use super::super::tables::{Stopped, member_name, token_range, unreadable};
use super::Tables;
use crate::policy::AccountId;

/// How many sessions that are over are forgotten with each new one: more than can come new.
const FORGOTTEN_AT_ONCE: usize = 64;

impl Tables<'_> {
    pub(in super::super) fn create_member(
        &mut self,
        account: &AccountId,
        member: &Member,
        note: &Note,
        now: Timestamp,
    ) -> Result<MemberWritten, Stopped> {
        if let Some(version) = self.member_version(account, &member.id)? {
            return Ok(MemberWritten::Conflict { version });
        }
        self.write_member(account, member, 1, note, now)
    }

    pub(in super::super) fn put_member(
        &mut self,
        account: &AccountId,
        member: &Member,
        note: &Note,
        now: Timestamp,
    ) -> Result<MemberWritten, Stopped> {
        match self.member_version(account, &member.id)? {
            None => Ok(MemberWritten::Missing),
            Some(version) if version != member.version => Ok(MemberWritten::Conflict { version }),
            Some(version) => self.write_member(account, member, version.saturating_add(1), note, now),
        }
    }

    pub(in super::super) fn remove_member(
        &mut self,
        account: &AccountId,
        id: &MemberId,
        version: u64,
        note: &Note,
        now: Timestamp,
    ) -> Result<MemberWritten, Stopped> {
        match self.member_version(account, id)? {
            None => return Ok(MemberWritten::Missing),
            Some(stored) if stored != version => return Ok(MemberWritten::Conflict { version: stored }),
            Some(_) => {}
        }
        self.note(account, note, now)?;
        self.members.remove(member_name(account, id).as_str())?;
        Ok(MemberWritten::Done { version: version.saturating_add(1) })
    }

    /// The stored version; `None`: there is no such member.
    fn member_version(&self, account: &AccountId, id: &MemberId) -> Result<Option<u64>, Stopped> {
        let name = member_name(account, id);
        let Some(text) = self.members.get(name.as_str())? else { return Ok(None) };
        let head = Head::parse(text.value()).ok_or_else(|| unreadable(&name, &"it is not of its form"))?;
        Ok(Some(head.version))
    }

    fn write_member(
        &mut self,
        account: &AccountId,
        member: &Member,
        version: u64,
        note: &Note,
        now: Timestamp,
    ) -> Result<MemberWritten, Stopped> {
        let (name, lower) = (member_name(account, &member.id), lower(&member.name));
        // Names of members and of tokens are made alike.
        let (start, end) = token_range(account, None);
        for entry in self.members.range(start.as_str()..end.as_str())? {
            let (other, text) = entry?;
            // A member that cannot be read cannot sign in; its name does no harm.
            let head = Head::parse(text.value()).filter(|_| other.value() != name);
            if head.is_some_and(|head| head.lower == lower) {
                return Ok(MemberWritten::NameTaken);
            }
        }
        self.note(account, note, now)?;
        self.members.insert(name.as_str(), member.to_text(version).as_str())?;
        Ok(MemberWritten::Done { version })
    }

    /// Remembers a session, and forgets some that are over.
    pub(in super::super) fn put_session(
        &mut self,
        account: &AccountId,
        digest: &SessionDigest,
        session: &Session,
        life: Duration,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        self.forget_sessions(now)?;
        self.end_session(account, digest)?;
        let life = SignedDuration::try_from(life).unwrap_or(SignedDuration::MAX);
        let ends = now.checked_add(life).unwrap_or(Timestamp::MAX).as_microsecond();
        let (account, digest) = (account.as_str(), hex::encode(digest.0));
        self.sessions.insert((account, digest.as_str()), (ends, session.to_text().as_str()))?;
        self.session_ends.insert((ends, account, digest.as_str()), ())?;
        Ok(())
    }

    pub(in super::super) fn end_session(
        &mut self,
        account: &AccountId,
        digest: &SessionDigest,
    ) -> Result<(), Stopped> {
        let (account, digest) = (account.as_str(), hex::encode(digest.0));
        let ends = self.sessions.remove((account, digest.as_str()))?.map(|kept| kept.value().0);
        if let Some(ends) = ends {
            self.session_ends.remove((ends, account, digest.as_str()))?;
        }
        Ok(())
    }

    fn forget_sessions(&mut self, now: Timestamp) -> Result<(), Stopped> {
        let mut over = Vec::new();
        let past = (i64::MIN, "", "")..(now.as_microsecond().saturating_add(1), "", "");
        for entry in self.session_ends.range(past)?.take(FORGOTTEN_AT_ONCE) {
            let (key, _) = entry?;
            let (ends, account, digest) = key.value();
            over.push((ends, account.to_owned(), digest.to_owned()));
        }
        for (ends, account, digest) in over {
            self.session_ends.remove((ends, account.as_str(), digest.as_str()))?;
            self.sessions.remove((account.as_str(), digest.as_str()))?;
        }
        Ok(())
    }
}
