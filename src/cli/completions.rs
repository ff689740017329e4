//! `doorward completions`: what a shell needs to complete commands.
//!
//! In: a shell's name. Out: its script on standard output.
//! Drops: nothing.
//! Must not know: any other command's insides.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// Prints the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward completions bash > /etc/bash_completion.d/doorward
  doorward completions zsh > ~/.zfunc/_doorward
  doorward completions fish > ~/.config/fish/completions/doorward.fish")]
pub struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    ///
    /// # Errors
    /// What the system says of standard output.
    pub fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "doorward", &mut script);
        std::io::stdout().lock().write_all(&script)?;
        Ok(())
    }
}
