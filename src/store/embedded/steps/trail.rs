//! The trail: added to in the very step that does what it tells of.

use jiff::Timestamp;
use redb::ReadableTable;

use super::super::super::trail::{EntryId, Note};
use super::super::tables::Stopped;
use super::Tables;
use crate::policy::AccountId;

impl Tables<'_> {
    /// Adds a note. Its place is behind all others, even where the clock has gone back.
    pub(in super::super) fn note(
        &mut self,
        account: &AccountId,
        note: &Note,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let account = account.as_str();
        let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
        let last =
            self.trail.range((account, 0, 0)..=(account, u64::MAX, u64::MAX))?.next_back().transpose()?;
        let last = last.map(|(key, _)| {
            let (_, millis, number) = key.value();
            EntryId { millis, number }
        });
        let id = match last {
            Some(last) if last.millis >= millis => EntryId { number: last.number + 1, ..last },
            _ => EntryId { millis, number: 0 },
        };
        let text = note.to_text();
        self.trail.insert((account, id.millis, id.number), (now.as_microsecond(), text.as_str()))?;
        self.trail_of.insert((account, note.target.as_str(), id.millis, id.number), ())?;
        Ok(())
    }
}
