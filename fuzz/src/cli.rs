//! What of the command line reads files of others. The types below stand in for `cli/import.rs`, which knows the admin API.

pub mod import {
    mod apisix;
    mod draft;
    mod kong;
    mod limits;
    mod source;
    mod tyk;

    /// What a file is.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Format {
        Jsonl,
        Kong,
        Tyk,
        Apisix,
    }

    impl Format {
        /// Those of other gateways, with the names that their tokens are known by.
        pub const DUMPS: [(Self, &'static str); 3] =
            [(Self::Kong, "kong"), (Self::Tyk, "tyk"), (Self::Apisix, "apisix")];
    }

    /// A token to be imported: what the admin API is sent, and the rest of what is known of it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Read {
        pub body: String,
        pub place: String,
        pub key_sha256: Option<String>,
        pub identity: Option<(&'static str, String)>,
        pub brings_value: bool,
    }

    fn told(item: source::Item) -> Read {
        let brings_value = item.brings_value();
        let source::Item { body, place, key_sha256, identity, .. } = item;
        Read { body, place, key_sha256, identity, brings_value }
    }

    /// Tokens of a file of JSON Lines, as far as it can be read.
    pub fn read_lines(bytes: &[u8]) -> Vec<Read> {
        source::lines(bytes).map_while(Result::ok).map(told).collect()
    }

    /// Tokens of another gateway's dump, if it is one.
    pub fn read_dump(bytes: &[u8], format: Format) -> Option<Vec<Read>> {
        let (items, _) = source::read_dump(bytes, format).ok()?;
        Some(items.into_iter().map(told).collect())
    }
}
