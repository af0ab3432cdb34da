//! What a client could say to the forced command, one request a line.
#![cfg_attr(fuzzing, no_main)]

use std::sync::OnceLock;

use host::host_apply::{HostApply, serve};
use tempfile::TempDir;

/// Whatever comes, each answer is one object on one line, nothing runs that was not permitted, and
/// serving ends when the client is gone.
pub(crate) fn law(input: &[u8]) {
    static PLACE: OnceLock<TempDir> = OnceLock::new();
    let place = PLACE.get_or_init(|| TempDir::new().expect("a temporary directory"));
    let host_apply = HostApply {
        runtime_dir: place.path().join("changes"),
        rollback_program: vec!["/nonexistent".into()],
        local: host::Local::new().path("/nonexistent"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut answers = Vec::new();
    let serving = serve(input, &mut answers, &host_apply, |_| Err("not here".to_owned()));
    let ended = runtime.expect("a runtime").block_on(serving);
    if let Err(error) = ended {
        assert!(!error.to_string().contains(char::is_control), "more than a line: {error}");
    }
    for line in answers.split_inclusive(|it| *it == b'\n') {
        let answer: serde_json::Value = serde_json::from_slice(line).expect("a JSON object");
        assert!(answer.get("answer").is_some_and(serde_json::Value::is_string), "{answer}");
        // Only what has no command is ever done: a confirmation, which nothing waits for.
        assert!(answer["answer"] != "done", "{answer}");
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| law(input));
