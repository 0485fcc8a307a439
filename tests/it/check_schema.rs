//! The JSON form of `comptoir check` is what `docs/check.schema.json` says, in good and in bad states.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// As much of JSON Schema (draft 2020-12) as the file uses; a word it does not know is an error, so that none is passed over.
fn check(schema: &Value, value: &Value, root: &Value, at: &str, wrong: &mut Vec<String>) {
    for (word, rule) in schema.as_object().unwrap() {
        match word.as_str() {
            "$ref" => {
                let path = rule.as_str().unwrap().trim_start_matches('#');
                check(root.pointer(path).unwrap(), value, root, at, wrong);
            }
            "type" => {
                let types = match rule {
                    Value::Array(types) => types.clone(),
                    one => vec![one.clone()],
                };
                if !types.iter().any(|one| one == kind(value)) {
                    wrong.push(format!("{at}: {value} is not of type {rule}"));
                }
            }
            "enum" => {
                if !rule.as_array().unwrap().contains(value) {
                    wrong.push(format!("{at}: {value} is none of {rule}"));
                }
            }
            "anyOf" => {
                let fits = |one: &Value| {
                    let mut wrong = Vec::new();
                    check(one, value, root, at, &mut wrong);
                    wrong.is_empty()
                };
                if !rule.as_array().unwrap().iter().any(fits) {
                    wrong.push(format!("{at}: {value} fits none of {rule}"));
                }
            }
            "required" => {
                for name in rule.as_array().unwrap() {
                    if value.get(name.as_str().unwrap()).is_none() {
                        wrong.push(format!("{at}: {name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, part) in value.as_object().into_iter().flatten() {
                    match rule.get(name) {
                        Some(rule) => check(rule, part, root, &format!("{at}.{name}"), wrong),
                        None => wrong.push(format!("{at}.{name} is not described")),
                    }
                }
            }
            "items" => {
                for (place, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(rule, item, root, &format!("{at}[{place}]"), wrong);
                }
            }
            "description" | "title" | "$schema" | "$id" | "$defs" | "additionalProperties" => {}
            other => panic!("{other} is a word this test does not know"),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn problems(value: &Value) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/check.schema.json");
    let schema: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let mut wrong = Vec::new();
    check(&schema, value, &schema, "report", &mut wrong);
    wrong
}

#[test]
fn the_report_is_as_its_schema_says() {
    let dir = tempfile::tempdir().unwrap();
    let site_file = dir.path().join("site.toml");
    let nowhere = "https://127.0.0.1:9";
    let wan = ["api", "bus", "media", "logs", "support"]
        .map(|flow| format!("{flow}_url = '{nowhere}'\n"))
        .concat();
    for more in ["", "[wan.logs]\nenabled = false\n", "[wan]\nunknown = 1\n"] {
        let text = format!("[store]\ndata_dir = {:?}\n[wan]\n{wan}{more}", dir.path());
        fs::write(&site_file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_comptoir"))
            .args([
                "check",
                "--json",
                "--image-file",
                "/nonexistent",
                "--site-file",
            ])
            .arg(&site_file)
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(problems(&report), Vec::<String>::new());
        // The test itself sees what does not fit.
        let mut other = report.clone();
        other["flows"][0]["verdict"] = "perhaps".into();
        other["surprise"] = Value::Null;
        assert_eq!(problems(&other).len(), 2, "{:?}", problems(&other));
    }
}
