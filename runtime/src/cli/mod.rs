//! The user's words: one call of `lifecycle` for each command, and how its failure is shown.
//!
//! runc's command line, option by option, with crun's additions. A command's options are a clap table
//! (a derived struct beside its `run`); only the table of the command at hand is built.

mod create;
mod delete;
mod events;
mod events_json;
mod exec;
mod features;
mod globals;
mod hint;
mod kill;
mod list;
mod pattern;
mod pause;
mod plan;
mod ps;
mod report;
mod run;
mod signal;
mod spec;
mod start;
mod state;
mod update;
mod usage;
mod version;
mod words;

use std::ffi::OsString;
use std::time::Instant;

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::config::OCI_VERSION;
use crate::config::id::ContainerId;
use crate::error::{Error, Result};
use crate::host::Facts;
use crate::seal::seal;
use globals::{Context, Globals};
use report::{Log, print};
use words::Options;

/// One command: its options are the fields of the type.
trait Verb: clap::Args {
    const NAME: &str;
    const ABOUT: &str;
    /// What follows the name in the usage line.
    const USAGE: &str;
    const DESCRIPTION: &str;
    /// At least and at most so many arguments.
    const ARGUMENTS: (usize, usize);
    const OPTIONS: Options = Options::Anywhere;
    /// What a failure's message begins with: engines show it, and runc's has it too.
    const PREFIX: &str = "";
    const EXIT: u8 = 1;
    /// Not for commands whose callers read stderr as part of a document.
    const HINT_ON_STDERR: bool = true;
    /// It bears a process in a container, which begins as a program of our own file.
    const SEALED: bool = false;

    /// The exit code.
    fn run(self, arguments: &[String], context: &Context) -> Result<u8>;
}

/// The exit code, or what there is to tell.
type Outcome = std::result::Result<u8, Failure>;

/// A [`Verb`] without its type: what follows is compiled once, not for each command.
struct Command {
    name: &'static str,
    about: &'static str,
    /// `None`: not there yet.
    verb: Option<Shape>,
}

struct Shape {
    usage: &'static str,
    description: &'static str,
    arguments: (usize, usize),
    options: Options,
    prefix: &'static str,
    exit: u8,
    hint_on_stderr: bool,
    sealed: bool,
    /// Adds the options.
    table: fn(clap::Command) -> clap::Command,
    run: fn(&ArgMatches, &[String], &Context) -> Result<u8>,
}

enum Failure {
    /// These words are no command line: `help` is shown. In runc's order: first on stdout what is
    /// wrong, if it is about an option, then the help; on stderr `text`.
    Usage {
        text: String,
        hint: Option<String>,
        about_option: bool,
        help: String,
    },
    Verb {
        error: Error,
        prefix: &'static str,
        exit: u8,
        hint_on_stderr: bool,
    },
}

const COMMANDS: &[Command] = &[
    absent("checkpoint", "checkpoint a running container (not supported yet)"),
    of::<create::Create>(),
    of::<delete::Delete>(),
    of::<events::Events>(),
    of::<exec::Exec>(),
    of::<features::Features>(),
    of::<kill::Kill>(),
    of::<list::List>(),
    of::<pause::Pause>(),
    of::<plan::Plan>(),
    of::<ps::Ps>(),
    absent("restore", "restore a container from a checkpoint (not supported yet)"),
    of::<pause::Resume>(),
    of::<run::Run>(),
    of::<spec::Spec>(),
    of::<start::Start>(),
    of::<state::State>(),
    of::<update::Update>(),
];

const fn absent(name: &'static str, about: &'static str) -> Command {
    Command { name, about, verb: None }
}

const fn of<V: Verb>() -> Command {
    let verb = Shape {
        usage: V::USAGE,
        description: V::DESCRIPTION,
        arguments: V::ARGUMENTS,
        options: V::OPTIONS,
        prefix: V::PREFIX,
        exit: V::EXIT,
        hint_on_stderr: V::HINT_ON_STDERR,
        sealed: V::SEALED,
        table: V::augment_args,
        run: |matches, arguments, context| typed::<V>(matches)?.run(arguments, context),
    };
    Command { name: V::NAME, about: V::ABOUT, verb: Some(verb) }
}

/// The document of `features`, for a shim that has this runtime in itself.
pub use features::document as features_document;

/// All of the program but its end: `words` are its arguments without its name.
pub fn run(words: impl IntoIterator<Item = OsString>) -> u8 {
    let words: Vec<OsString> = words.into_iter().collect();
    let mut log = Log::default();
    match dispatch(&words, &mut log) {
        Ok(code) => code,
        Err(Failure::Usage { text, hint, about_option, help }) => {
            let what =
                if about_option { format!("Incorrect Usage: {text}") } else { "Incorrect Usage.".into() };
            if let Err(error) = print(&format!("{what}\n\n{help}")) {
                log.failure(&error.to_string(), None, true);
            }
            log.failure(&text, hint.as_deref(), true);
            1
        }
        Err(Failure::Verb { error, prefix, exit, hint_on_stderr }) => {
            // Only where the kernel said no does it matter on which host; without facts there are fewer hints.
            let facts = error.errno().and_then(|_| Facts::probe().ok());
            let hint = hint::hint(&error, facts.as_ref());
            log.failure(&format!("{prefix}{error}"), hint.as_deref(), hint_on_stderr);
            exit
        }
    }
}

fn dispatch(words: &[OsString], log: &mut Log) -> Outcome {
    let table = globals::table();
    let wrong = |(text, hint)| Failure::Usage { text, hint, about_option: true, help: usage::program() };
    let sorted = words::sort(&table, Options::First, words).map_err(|text| wrong((text, None)))?;
    let matches = parse(table, sorted.options).map_err(wrong)?;
    let globals: Globals = typed(&matches).map_err(plain)?;
    *log = globals.log();

    let name = sorted.arguments.first().and_then(|word| word.to_str());
    let rest = sorted.arguments.get(1..).unwrap_or_default();
    if globals.version {
        return print(&version::text()).map(|()| 0).map_err(plain);
    }
    match name {
        _ if sorted.help => print(&usage::program()).map(|()| 0).map_err(plain),
        None if sorted.arguments.is_empty() => print(&usage::program()).map(|()| 0).map_err(plain),
        Some("help" | "h") => help(rest),
        name => {
            let command = find(sorted.arguments.first(), name)?;
            let begin = Instant::now();
            let context = globals.context().map_err(plain)?;
            let result = perform(command, rest, Some(&context));
            // Not louder: an engine that finds a line in the log takes it for the failure.
            context.runtime.take_warnings().iter().for_each(|warning| log.debug(warning));
            let code = match &result {
                Ok(code) => *code,
                Err(Failure::Verb { exit, .. }) => *exit,
                Err(Failure::Usage { .. }) => 1,
            };
            log.debug(&format!("{} exits with {code} after {:?}", command.name, begin.elapsed()));
            result
        }
    }
}

/// `tare help`, `tare help COMMAND`.
fn help(rest: &[OsString]) -> Outcome {
    let Some(word) = rest.first() else { return print(&usage::program()).map(|()| 0).map_err(plain) };
    let command = find(Some(word), word.to_str())?;
    perform(command, &["--help".into()], None)
}

fn find(word: Option<&OsString>, name: Option<&str>) -> std::result::Result<&'static Command, Failure> {
    COMMANDS.iter().find(|command| Some(command.name) == name).ok_or_else(|| {
        let shown = word.map(|word| word.to_string_lossy()).unwrap_or_default();
        let error = Error::Usage(format!("No help topic for '{shown}'"));
        // As runc, whose command-line library has a number of its own for this.
        Failure::Verb { error, prefix: "", exit: 3, hint_on_stderr: true }
    })
}

fn plain(error: Error) -> Failure {
    Failure::Verb { error, prefix: "", exit: 1, hint_on_stderr: true }
}

/// Without a context only `--help` can be among the words.
fn perform(command: &Command, words: &[OsString], context: Option<&Context>) -> Outcome {
    let Some(verb) = &command.verb else {
        // Also when asked for help: so Podman finds out whether a runtime can make a checkpoint.
        let why = "this version of tare does not support it".into();
        return Err(plain(Error::Host { what: command.name.into(), why }));
    };
    let fresh = || (verb.table)(globals::bare(command.name));
    let help = || usage::command(command, verb, &fresh());
    let wrong = |(text, hint), about_option| Failure::Usage { text, hint, about_option, help: help() };
    let table = fresh();
    let sorted = words::sort(&table, verb.options, words).map_err(|text| wrong((text, None), true))?;
    let Some(context) = context.filter(|_| !sorted.help) else {
        return print(&help()).map(|()| 0).map_err(plain);
    };
    let matches = parse(table, sorted.options).map_err(|what| wrong(what, true))?;
    if let Some(text) = miscounted(command.name, verb.arguments, sorted.arguments.len()) {
        return Err(wrong((text, None), false));
    }
    let perform = || {
        let arguments = sorted.arguments.into_iter().map(text).collect::<Result<Vec<String>>>()?;
        if verb.sealed {
            seal()?;
        }
        (verb.run)(&matches, &arguments, context)
    };
    perform().map_err(|error| Failure::Verb {
        error,
        prefix: verb.prefix,
        exit: verb.exit,
        hint_on_stderr: verb.hint_on_stderr,
    })
}

fn miscounted(name: &str, (least, most): (usize, usize), count: usize) -> Option<String> {
    let (rule, number) = match count {
        n if n < least && least == most => ("exactly", least),
        n if n > most && least == most => ("exactly", most),
        n if n < least => ("a minimum of", least),
        n if n > most => ("a maximum of", most),
        _ => return None,
    };
    Some(format!("tare: \"{name}\" requires {rule} {number} argument(s)"))
}

fn text(word: OsString) -> Result<String> {
    word.into_string().map_err(|word| Error::Usage(format!("argument {} is not UTF-8", word.display())))
}

/// What is wrong, and a hint.
type Wrong = (String, Option<String>);

fn parse(table: clap::Command, options: Vec<OsString>) -> std::result::Result<ArgMatches, Wrong> {
    table.try_get_matches_from(options).map_err(|e| explain(&e))
}

fn typed<A: clap::Args>(matches: &ArgMatches) -> Result<A> {
    A::from_arg_matches(matches).map_err(|e| Error::Usage(explain(&e).0))
}

/// clap's error in one line; Go's words for an unknown option.
fn explain(error: &clap::Error) -> Wrong {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    if error.kind() == ErrorKind::UnknownArgument {
        let name = context(ContextKind::InvalidArg).unwrap_or_default().trim_start_matches('-');
        let hint = context(ContextKind::SuggestedArg).map(|arg| format!("did you mean {arg}?"));
        return (format!("flag provided but not defined: -{name}"), hint);
    }
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let line = first.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    (line.strip_prefix("error: ").unwrap_or(&line).to_owned(), None)
}

/// The first argument of most commands.
fn id(arguments: &[String]) -> Result<ContainerId> {
    ContainerId::new(arguments.first().map(String::as_str).unwrap_or_default())
}

/// `lifecycle` takes paths that mean the same in any folder.
fn absolute(path: std::path::PathBuf) -> Result<std::path::PathBuf> {
    std::path::absolute(&path).map_err(|e| Error::io("find", &path, &e))
}

fn absolute_if_given(path: Option<std::path::PathBuf>) -> Result<Option<std::path::PathBuf>> {
    path.map(absolute).transpose()
}
