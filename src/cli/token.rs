//! `tollgate token`: clients of the admin API, one for each thing that can be done to a token.

use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::{Call, Client, patiently};
use super::flags::{EditFlags, PolicyFlags, parse_duration};
use super::receipt::Wait;
use super::usage::TokenUsageArgs;
use super::{Global, Output};
use crate::config::units::format_duration;
use crate::policy::TokenId;

mod view;

pub(super) use view::{grant, limit, plain, usage_table};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token
    Create(CreateArgs),
    /// List tokens, oldest first
    List(ListArgs),
    /// Show a token and what it has used
    Show {
        /// The token's id
        #[arg(value_parser = parse_id)]
        id: TokenId,
    },
    /// Change what a token may do, or with --all what many may do
    Edit(Box<EditArgs>),
    /// Print all tokens, one JSON object a line, as an import takes them
    Export(super::export::ExportArgs),
    /// Make tokens from a file: an export, or a dump of another gateway
    Import(Box<super::import::ImportArgs>),
    /// Revoke a token, for good
    Revoke {
        /// The token's id
        #[arg(value_parser = parse_id)]
        id: TokenId,
        #[command(flatten)]
        terms: WriteTerms,
    },
    /// Give a token a new value under the same id
    Rotate {
        /// The token's id
        #[arg(value_parser = parse_id)]
        id: TokenId,
        /// How long the old value still works, like 24h
        #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "0s")]
        grace: Duration,
        #[command(flatten)]
        terms: WriteTerms,
    },
    /// Print a token's value
    Reveal {
        /// The token's id
        #[arg(value_parser = parse_id)]
        id: TokenId,
    },
    /// Make a secret that signs a token's requests, and print it: only this once
    SigningSecret {
        /// The token's id
        #[arg(value_parser = parse_id)]
        id: TokenId,
        #[command(flatten)]
        terms: WriteTerms,
    },
    /// Show what a token has used: now, or with --by, --from, --to or --csv in a stretch of time
    Usage {
        /// The token's id
        #[arg(value_parser = parse_id)]
        id: TokenId,
        #[command(flatten)]
        args: TokenUsageArgs,
    },
}

/// Which tokens.
#[derive(Debug, Args)]
pub(super) struct Selection {
    /// Only tokens with these words in nickname, id or publishable value; never a secret value
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Only tokens in this state
    #[arg(long, value_name = "STATUS", value_parser = states())]
    status: Option<String>,
    /// Only tokens of this type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Kind>,
}

/// The states that tokens are filtered by.
pub(super) fn states() -> PossibleValuesParser {
    PossibleValuesParser::new(["active", "disabled", "revoked", "expired"])
}

impl Selection {
    /// The query that lists them, in pages.
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        query(self.search.as_deref(), self.status.as_deref(), self.kind)
    }
}

/// The query that lists some tokens, in pages.
pub(super) fn query(
    search: Option<&str>,
    status: Option<&str>,
    kind: Option<Kind>,
) -> Vec<(&'static str, String)> {
    let mut query = vec![("limit", "500".to_owned())];
    query.extend(search.map(|text| ("q", text.to_owned())));
    query.extend(status.map(|status| ("status", status.to_owned())));
    query.extend(kind.map(|kind| ("type", kind.name().to_owned())));
    query
}

/// Goes through the tokens that a query lists, page by page.
pub(super) fn each_page(
    client: &Client,
    mut query: Vec<(&'static str, String)>,
    mut take: impl FnMut(Vec<Value>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let asked = query.len();
    loop {
        let call = Call { query: query.clone(), ..Call::default() };
        let mut page = patiently(|| client.call("GET", "/v1/tokens", &call))?;
        if let Some(Value::Array(tokens)) = page.get_mut("tokens").map(Value::take) {
            take(tokens)?;
        }
        let Some(cursor) = page.get("next_cursor").and_then(Value::as_str) else { return Ok(()) };
        query.truncate(asked);
        query.push(("cursor", cursor.to_owned()));
    }
}

/// Which tokens are listed, and what is told of them.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    selection: Selection,
    /// Show what each has used, and when it was last used
    #[arg(long)]
    usage: bool,
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Publishable tokens may stand in web pages; secret ones may do anything on the account
    #[arg(long = "type", value_name = "TYPE", default_value = "publishable")]
    kind: Kind,
    #[command(flatten)]
    flags: PolicyFlags,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Debug, Args)]
pub(super) struct EditArgs {
    /// The token's id
    #[arg(value_parser = parse_id, required_unless_present = "all", conflicts_with = "all")]
    id: Option<TokenId>,
    #[command(flatten)]
    many: super::edit_all::EditAllArgs,
    #[command(flatten)]
    flags: PolicyFlags,
    #[command(flatten)]
    edit: EditFlags,
    #[command(flatten)]
    terms: WriteTerms,
}

/// On which terms something is written.
#[derive(Debug, Args)]
pub(super) struct WriteTerms {
    /// Only if this is the stored version
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
    #[command(flatten)]
    wait: Wait,
}

impl WriteTerms {
    /// The call that writes.
    pub(super) fn call<'a>(&self, body: Option<&'a Value>) -> Call<'a> {
        Call {
            body,
            if_version: self.if_version,
            query: self.wait.parameter().into_iter().collect(),
            ..Call::default()
        }
    }

    /// Whether somebody wants to build on a version.
    pub(super) fn names_version(&self) -> bool {
        self.if_version.is_some()
    }

    /// The query parameter, if somebody wants to wait.
    pub(super) fn wait(&self) -> Option<(&'static str, String)> {
        self.wait.parameter()
    }

    /// Adds to a command's output whether the change is in force.
    pub(super) fn conclude(&self, global: &Global, answer: &Value, output: Output) -> Output {
        self.wait.conclude(global.json, answer, output)
    }
}

/// A token's type.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Kind {
    /// May stand in a web page
    Publishable,
    /// May do anything on the account
    Secret,
}

impl Kind {
    /// The name in the API.
    fn name(self) -> &'static str {
        match self {
            Self::Publishable => "publishable",
            Self::Secret => "secret",
        }
    }
}

/// Reads a token's id. Somebody may have pasted a token instead, so the text is not repeated.
pub(super) fn parse_id(text: &str) -> Result<TokenId, &'static str> {
    TokenId::parse(text).ok_or("not a token's id (tok_ and 26 characters; `tollgate token list` shows them)")
}

/// Runs one of the commands on tokens.
pub(super) fn run(global: &Global, command: TokenCommand) -> anyhow::Result<Output> {
    match command {
        TokenCommand::Create(args) => create(global, &args),
        TokenCommand::List(args) => list(global, &args),
        TokenCommand::Show { id } => show(global, &read(global, &id)?),
        TokenCommand::Edit(args) => {
            let body = Value::Object(args.flags.edit(&args.edit, Timestamp::now())?);
            let Some(id) = &args.id else {
                return super::edit_all::run(global, &args.many, &body, &args.terms);
            };
            args.many.check_absent()?;
            let token = Client::new(global)?.call("PATCH", &path(id), &args.terms.call(Some(&body)))?;
            Ok(args.terms.conclude(global, &token, show(global, &token)?))
        }
        TokenCommand::Export(args) => super::export::run(global, &args),
        TokenCommand::Import(args) => super::import::run(global, &args),
        TokenCommand::Revoke { id, terms } => {
            let token = Client::new(global)?.call("DELETE", &path(&id), &terms.call(None))?;
            let output =
                if global.json { Output::json(&token)? } else { Output::text(format!("{id} is revoked\n")) };
            Ok(terms.conclude(global, &token, output))
        }
        TokenCommand::Rotate { id, grace, terms } => rotate(global, &id, grace, &terms),
        TokenCommand::Reveal { id } => {
            let revealed =
                Client::new(global)?.call("POST", &format!("{}/reveal", path(&id)), &Call::default())?;
            if global.json {
                return Output::json(&revealed);
            }
            Ok(Output::text(revealed.get("token").map(plain).unwrap_or_default() + "\n"))
        }
        TokenCommand::SigningSecret { id, terms } => signing_secret(global, &id, &terms),
        TokenCommand::Usage { id, args } if args.wants_history() => {
            args.run(global, &format!("{}/usage", path(&id)))
        }
        TokenCommand::Usage { id, .. } => {
            let token = read(global, &id)?;
            if global.json {
                return Output::json(&json!({"id": token.get("id"), "usage": token.get("usage")}));
            }
            Ok(Output::text(usage_table(token.get("usage"))))
        }
    }
}

fn path(id: &TokenId) -> String {
    format!("/v1/tokens/{id}")
}

fn read(global: &Global, id: &TokenId) -> anyhow::Result<Value> {
    Client::new(global)?.call("GET", &path(id), &Call::default())
}

fn show(global: &Global, token: &Value) -> anyhow::Result<Output> {
    if global.json { Output::json(token) } else { Ok(Output::text(view::token(token))) }
}

fn create(global: &Global, args: &CreateArgs) -> anyhow::Result<Output> {
    let mut body = args.flags.create(Timestamp::now())?;
    if let Kind::Secret = args.kind {
        body.insert("type".to_owned(), json!("secret"));
    }
    let body = Value::Object(body);
    let query = args.wait.parameter().into_iter().collect();
    let call = Call { query, ..Call::with_body(&body) };
    let token = Client::new(global)?.call("POST", "/v1/tokens", &call)?;
    Ok(args.wait.conclude(global.json, &token, show(global, &token)?))
}

fn list(global: &Global, args: &ListArgs) -> anyhow::Result<Output> {
    let client = Client::new(global)?;
    let mut tokens = Vec::new();
    let mut query = args.selection.query();
    query.extend(args.usage.then(|| ("usage", "true".to_owned())));
    each_page(&client, query, |page| {
        tokens.extend(page);
        Ok(())
    })?;
    if global.json {
        return Output::json(&json!({"tokens": tokens, "next_cursor": null}));
    }
    Ok(Output::text(if args.usage { view::list_usage(&tokens) } else { view::list(&tokens) }))
}

fn rotate(global: &Global, id: &TokenId, grace: Duration, terms: &WriteTerms) -> anyhow::Result<Output> {
    let body = json!({"grace": format_duration(grace)});
    let token =
        Client::new(global)?.call("POST", &format!("{}/rotate", path(id)), &terms.call(Some(&body)))?;
    let mut output = terms.conclude(global, &token, show(global, &token)?);
    if token.get("type").and_then(Value::as_str) == Some("secret") {
        output.notes.push(
            "note: keep the new value now; if state_dir/secret-token or TOLLGATE_SECRET_TOKEN holds the old one, \
             replace it there"
                .to_owned(),
        );
    }
    Ok(output)
}

fn signing_secret(global: &Global, id: &TokenId, terms: &WriteTerms) -> anyhow::Result<Output> {
    let path = format!("{}/signing-secret", path(id));
    let made = Client::new(global)?.call("POST", &path, &terms.call(None))?;
    let output = if global.json {
        Output::json(&made)?
    } else {
        Output::text(made.get("signing_secret").map(plain).unwrap_or_default() + "\n")
    };
    let mut output = terms.conclude(global, &made, output);
    output
        .notes
        .push("note: keep the secret now; nobody can show it again. An earlier one signs no more".to_owned());
    Ok(output)
}
