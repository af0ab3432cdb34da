//! The test double fails a test for a command too many, one too few, and a different one.

use command::{Command, Output, Program};
use host::{ConfirmedChange, ExecuteError, Executor, Scripted};
use std::time::Duration;

fn list() -> Command {
    Command::new(Program::Nft).args(["-j", "list", "ruleset"])
}

fn apply() -> Command {
    Command::new(Program::Nft).args(["-f", "-"]).stdin("add table inet t")
}

fn undo() -> Command {
    Command::new(Program::Nft).args(["-f", "-"]).stdin("delete table inet t")
}

#[tokio::test]
async fn a_script_answers_in_order() -> Result<(), ExecuteError> {
    let mut host = Scripted::new().expect(list(), "{}").expect(apply(), "");
    assert_eq!(host.run(&list()).await?.stdout, "{}");
    assert!(host.run(&apply()).await?.succeeded());
    assert!(host.is_done());
    Ok(())
}

#[tokio::test]
#[should_panic(expected = "not the next command of the script")]
async fn a_different_command_fails_the_test() {
    let mut host = Scripted::new().expect(list(), "{}");
    let _ = host.run(&apply()).await;
}

#[tokio::test]
#[should_panic(expected = "the script has ended")]
async fn a_command_too_many_fails_the_test() {
    let _ = Scripted::new().run(&apply()).await;
}

#[test]
#[should_panic(expected = "never run")]
fn a_command_too_few_fails_the_test() {
    drop(Scripted::new().expect(list(), "{}"));
}

#[tokio::test]
async fn a_half_applied_change_is_rolled_back_at_once() -> Result<(), ExecuteError> {
    let refused = Output { status: Some(1), ..Output::default() };
    let mut host = Scripted::new()
        .expect(apply(), "")
        .expect_answer(list(), Ok(refused.clone()))
        .expect(undo(), "");
    let change = ConfirmedChange {
        apply: vec![apply(), list(), apply()],
        rollback: vec![undo()],
        within: Duration::from_secs(1),
    };
    assert_eq!(host.run_confirmed(&change).await?.last(), Some(&refused));
    Ok(())
}
