//! Files with mistakes. `TOLLGATE_BLESS=1` writes the messages anew; read the difference before you commit it.

use std::env::var_os;
use std::fs;

use super::{parse_file, yaml_files};

const FOLDER: &str = "tests/config/bad";

#[test]
fn tells_each_mistake_in_exactly_these_words() {
    let mut wrong = Vec::new();
    let files = yaml_files(FOLDER);
    for path in &files {
        let told = match parse_file(path) {
            Ok(_) => "no problem\n".to_owned(),
            Err(problems) => {
                let many = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("many_"));
                assert_eq!(problems.iter().count() > 1, many, "{problems}");
                format!("{problems}\n")
            }
        };
        let expected = path.with_extension("txt");
        if var_os("TOLLGATE_BLESS").is_some() {
            fs::write(&expected, &told).expect("write the message");
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        if told != expected {
            wrong.push(format!("--- expected\n{expected}--- told\n{told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files.len() >= 100, "only {} files in {FOLDER}", files.len());
}
