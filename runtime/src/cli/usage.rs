//! Help, laid out as runc's: engines and people look for `NAME:` at the top.

use clap::Arg;

use super::{COMMANDS, Command, Shape, globals};

const PROGRAM: &str = "\
tare runs a container from a bundle: a folder with a specification file,
config.json, and a root filesystem. It takes the commands and options of runc,
for engines and for people:

    # cd mybundle && tare spec && tare run mycontainer

`tare plan` prints what would be done, step by step, and does nothing.";

pub(super) fn program() -> String {
    let commands: Vec<_> = COMMANDS
        .iter()
        .map(|c| (c.name, c.about))
        .chain([("help, h", "show help of tare or of a command")])
        .collect();
    let width = commands.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut out = format!(
        "NAME:\n   tare - Open Container Initiative runtime\n\n{PROGRAM}\n\nUSAGE:\n   \
         tare [global options] command [command options] [arguments...]\n\nCOMMANDS:\n"
    );
    for (name, about) in commands {
        line(&mut out, name, width, about);
    }
    out.push_str("\nGLOBAL OPTIONS:\n");
    options(&mut out, &globals::table());
    out
}

pub(super) fn command(command: &Command, verb: &Shape, table: &clap::Command) -> String {
    let mut out = format!("NAME:\n   tare {} - {}\n\nUSAGE:\n   tare {0}", command.name, command.about);
    if table.get_arguments().next().is_some() {
        out.push_str(" [command options]");
    }
    if !verb.usage.is_empty() {
        out.push(' ');
        out.push_str(verb.usage);
    }
    out.push_str("\n\nDESCRIPTION:\n");
    for text in verb.description.lines() {
        out.push_str(format!("   {text}").trim_end());
        out.push('\n');
    }
    out.push_str("\nOPTIONS:\n");
    options(&mut out, table);
    out
}

fn options(out: &mut String, table: &clap::Command) {
    let shown: Vec<_> = table.get_arguments().filter(|arg| !arg.is_hide_set()).collect();
    let mut rows: Vec<_> = shown.into_iter().map(|arg| (names(arg), about(arg))).collect();
    rows.push(("--help, -h".to_owned(), "show this help".to_owned()));
    let width = rows.iter().map(|(names, _)| names.len()).max().unwrap_or_default();
    for (names, about) in rows {
        line(out, &names, width, &about);
    }
}

/// `--bundle DIR, -b DIR`
fn names(arg: &Arg) -> String {
    let value = match arg.get_value_names() {
        Some([name, ..]) if arg.get_action().takes_values() => format!(" {name}"),
        _ => String::new(),
    };
    let long = arg.get_long().map(|long| format!("--{long}{value}"));
    let short = arg.get_short().map(|short| format!("-{short}{value}"));
    long.into_iter().chain(short).collect::<Vec<_>>().join(", ")
}

fn about(arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let words: Vec<_> = arg.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
    if arg.get_action().takes_values() && !words.is_empty() {
        text.push_str(&format!(" [{}]", words.join(", ")));
    }
    if let [default] = arg.get_default_values()
        && arg.get_action().takes_values()
    {
        text.push_str(&format!(" (default: {})", default.display()));
    }
    text
}

fn line(out: &mut String, name: &str, width: usize, about: &str) {
    out.push_str(&format!(
        "   {name:width$}  {about}
"
    ));
}
