//! `tollgate sign`: the vectors of the specification, and where secrets may come from.

use std::fs;

use super::tool::{Done, command};

const PK: &str = "pk_0123456789abcdef0123456789abcdef";
const SECRET: &str = "sk_fedcba9876543210fedcba9876543210";
const DATE: &str = "20240115T123045Z";
const QUOTE: &str = "46f699f9b60e5c1499f9d774005ca424e887ed6d20905cd86a19d96c484fde3e";

/// Runs it in a folder with `body.json`, with these variables.
fn sign(args: &[&str], variables: &[(&str, &str)]) -> Done {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("body.json"), r#"[{"symbol":"AAPL","v":1}]"#).unwrap();
    fs::write(folder.path().join("secret"), format!("{SECRET}\n")).unwrap();
    let mut command = command(folder.path(), &["sign", "--date", DATE]);
    command.args(args).env_remove("TOLLGATE_SIGNING_SECRET").env_remove("TOLLGATE_TOKEN");
    command.envs(variables.iter().copied());
    Done::new(command.output().unwrap())
}

fn quote_url() -> String {
    format!("https://cloud.iexapis.com/v1/stock/aapl/quote?token={PK}")
}

#[test]
fn signs_the_vectors_of_the_specification() {
    let batch =
        format!("https://cloud.iexapis.com/v1/stock/market/batch?token={PK}&symbols=aapl,msft&types=quote");
    let record = format!("https://cloud.iexapis.com/v1/record/WS/DS?token={PK}");
    let quote = quote_url();
    let table: [(&[&str], &str); 3] = [
        (&[&quote], QUOTE),
        (&[&batch], "fe16eb33da9b260a13ed7d2f4c037e29bfe292a28e40b3de2ebae2dd366e6cf1"),
        (
            &[&record, "--method", "POST", "--body-file", "body.json"],
            "e0c26bc2431dbd3779aeaf597823a4568923e481e55a3d7e914d69672bbe944a",
        ),
    ];
    for (args, signature) in table {
        let done = sign(args, &[("TOLLGATE_SECRET_TOKEN", SECRET)]).expect(0);
        let expected = format!(
            "x-iex-date: {DATE}\nAuthorization: IEX-HMAC-SHA256 Credential={PK}/20240115/iex_request, \
             SignedHeaders=host;x-iex-date, Signature={signature}\n"
        );
        assert_eq!(done.out, expected);
        let json = sign(&[args, &["--json"]].concat(), &[("TOLLGATE_SECRET_TOKEN", SECRET)]).expect(0).json();
        assert_eq!(json["signature"], signature);
        assert_eq!(json["headers"]["x-iex-date"], DATE);
    }
}

#[test]
fn explains_what_is_signed_without_showing_the_secret() {
    let done = sign(&[&quote_url(), "--explain"], &[("TOLLGATE_SECRET_TOKEN", SECRET)]).expect(0);
    let hash = "1fb2a1ba21af2600943e6c242858bf9a9174e470dbd6f6969b7b8f602fe7b1b9";
    for piece in [
        format!(
            "  GET\n  /v1/stock/aapl/quote\n  token={PK}\n  host:cloud.iexapis.com\n  x-iex-date:{DATE}\n  \n  host;x-iex-date\n"
        ),
        format!("its SHA-256: {hash}"),
        format!("  IEX-HMAC-SHA256\n  {DATE}\n  20240115/iex_request\n  {hash}\n"),
    ] {
        assert!(done.out.contains(&piece), "{piece} is not in {}", done.out);
    }
    assert!(!done.out.contains("fedc"), "{}", done.out);
    let json = sign(&[&quote_url(), "--explain", "--json"], &[("TOLLGATE_SECRET_TOKEN", SECRET)]).expect(0);
    assert_eq!(json.json()["canonical_sha256"], hash);
}

#[test]
fn takes_the_secret_from_where_it_is_safe() {
    let url = quote_url();
    let from_file = sign(&[&url, "--secret-file", "secret"], &[("TOLLGATE_SIGNING_SECRET", "ss_other")]);
    assert!(from_file.expect(0).out.contains(QUOTE), "the file comes first");
    let both = [("TOLLGATE_SIGNING_SECRET", SECRET), ("TOLLGATE_SECRET_TOKEN", "sk_other")];
    assert!(sign(&[&url], &both).expect(0).out.contains(QUOTE), "then the signing secret");
    sign(&[&url], &[]).expect(2).says(&["--secret-file", "TOLLGATE_SIGNING_SECRET"]);
    sign(&[&url, "--secret-file", "absent"], &[]).expect(1).says(&["absent"]);
    let secret_in_url = url.replace("pk_", "sk_");
    let refused = sign(&[&secret_in_url], &[("TOLLGATE_SECRET_TOKEN", SECRET)]).expect(2);
    assert!(!refused.err.contains("0123456789"), "{}", refused.err);
}

#[test]
fn a_token_outside_the_url_goes_into_its_header() {
    let variables = [("TOLLGATE_SECRET_TOKEN", SECRET), ("TOLLGATE_TOKEN", PK)];
    let done = sign(&["http://127.0.0.1:8080/v1/a"], &variables).expect(0);
    assert!(done.out.ends_with(&format!("\nX-API-Key: {PK}\n")), "{}", done.out);
    assert!(done.out.contains(&format!("Credential={PK}/")), "{}", done.out);
    sign(&["http://127.0.0.1:8080/v1/a"], &variables[..1]).expect(2).says(&["TOLLGATE_TOKEN"]);
}

#[test]
fn prints_a_curl_command_that_sends_what_was_signed() {
    let args = ["--curl", "--method", "POST", "--body-file", "body.json"];
    let url = quote_url();
    let done =
        sign(&[&[url.as_str()], args.as_slice()].concat(), &[("TOLLGATE_SECRET_TOKEN", SECRET)]).expect(0);
    let start = format!(
        "curl --path-as-is --globoff -X 'POST' -H 'x-iex-date: {DATE}' -H 'Authorization: IEX-HMAC-SHA256 "
    );
    assert!(done.out.starts_with(&start), "{}", done.out);
    assert!(done.out.ends_with(&format!(" --data-binary '@body.json' '{url}'\n")), "{}", done.out);
}
