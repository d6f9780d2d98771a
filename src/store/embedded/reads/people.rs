//! Members and sessions, from a snapshot.

use jiff::Timestamp;

use super::super::super::people::{Member, MemberId, Session, SessionDigest};
use super::super::tables::{MEMBERS, SESSIONS, Stopped, if_there, member_name, token_range, unreadable};
use super::Reads;
use crate::policy::AccountId;

impl Reads {
    pub(in super::super) fn members(&self, account: &AccountId) -> Result<Vec<Member>, Stopped> {
        let Some(table) = if_there(self.0.open_table(MEMBERS))? else { return Ok(Vec::new()) };
        // Names of members and of tokens are made alike.
        let (start, end) = token_range(account, None);
        let mut members = Vec::new();
        for entry in table.range(start.as_str()..end.as_str())? {
            let (name, text) = entry?;
            let id = name.value().split_once('/').map(|(_, id)| id).unwrap_or_default();
            match Member::parse(id, text.value().as_bytes()) {
                Ok(member) => members.push(member),
                Err(why) => {
                    tracing::error!(%account, member = id, why, "a member cannot be read; it is left out");
                }
            }
        }
        Ok(members)
    }

    pub(in super::super) fn member(
        &self,
        account: &AccountId,
        id: &MemberId,
    ) -> Result<Option<Member>, Stopped> {
        let Some(table) = if_there(self.0.open_table(MEMBERS))? else { return Ok(None) };
        let name = member_name(account, id);
        let Some(text) = table.get(name.as_str())? else { return Ok(None) };
        let member = Member::parse(id.as_str(), text.value().as_bytes());
        member.map(Some).map_err(|why| unreadable(&name, &why).into())
    }

    pub(in super::super) fn session(
        &self,
        account: &AccountId,
        digest: &SessionDigest,
        now: Timestamp,
    ) -> Result<Option<Session>, Stopped> {
        let Some(table) = if_there(self.0.open_table(SESSIONS))? else { return Ok(None) };
        let Some(kept) = table.get((account.as_str(), hex::encode(digest.0).as_str()))? else {
            return Ok(None);
        };
        let (ends, text) = kept.value();
        if ends <= now.as_microsecond() {
            return Ok(None);
        }
        let session = Session::parse(text);
        session.map(Some).ok_or_else(|| unreadable("of a session", &"it is not of its form").into())
    }
}
