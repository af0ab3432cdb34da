//! A host for tests that expects a script. It runs nothing.

use std::collections::VecDeque;

use command::{Command, Output};
use futures::future::BoxFuture;

use crate::{ExecuteError, Executor};

/// An executor that expects a script: these commands, in this order, answered like this.
///
/// A double for tests. It panics on a command that is not the next one of the script and, when
/// dropped, on commands that were never run.
#[derive(Debug, Default)]
pub struct Scripted {
    expected: VecDeque<(Command, Result<Output, ExecuteError>)>,
}

impl Scripted {
    /// Returns a script that expects nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Expects `command` next and answers with `stdout` and status 0.
    #[must_use]
    pub fn expect(self, command: Command, stdout: impl Into<String>) -> Self {
        let output = Output { status: Some(0), stdout: stdout.into(), stderr: String::new() };
        self.expect_answer(command, Ok(output))
    }

    /// Expects `command` next and gives this answer.
    #[must_use]
    pub fn expect_answer(mut self, command: Command, answer: Result<Output, ExecuteError>) -> Self {
        self.expected.push_back((command, answer));
        self
    }

    /// Whether everything expected so far has been run.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.expected.is_empty()
    }
}

impl Executor for Scripted {
    #[track_caller]
    fn run<'a>(&'a mut self, command: &'a Command) -> BoxFuture<'a, Result<Output, ExecuteError>> {
        let Some((expected, answer)) = self.expected.pop_front() else {
            panic!("the script has ended, but this was run: {command:#?}");
        };
        assert_eq!(*command, expected, "not the next command of the script");
        Box::pin(std::future::ready(answer))
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.expected.is_empty(), "never run: {:#?}", self.expected);
        }
    }
}
