//! Command lines as runc's callers write them, brought into the one form that clap is given.
//!
//! Go's `flag` package takes `-bundle X`, `--bundle=X` and `-b X` alike, and go-runc, conmon and many
//! scripts use all of them; clap takes a single dash for letters only. So the words are sorted here, by
//! clap's own table of the command's options: each option comes out as `--long` or `--long=value`, and
//! everything else is an argument. Options stand before or after arguments, except where the words
//! after the first argument are someone else's (the command of `exec`, the options of `ps`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, Command};

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) options: Vec<OsString>,
    pub(super) arguments: Vec<OsString>,
    /// `-h` or `--help` was among them.
    pub(super) help: bool,
}

/// Where options end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Options {
    /// At `--` only.
    Anywhere,
    /// At the first argument.
    First,
}

/// `Err` holds what is wrong. An option that is not in the table is passed on: clap knows what to say.
pub(super) fn sort(table: &Command, options: Options, words: &[OsString]) -> Result<Words, String> {
    let mut sorted = Words::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            sorted.arguments.extend(words.cloned());
            break;
        }
        let Some(name) = dashed(word) else {
            sorted.arguments.push(word.clone());
            if options == Options::First {
                // `exec ID -- sh`: to say that the options end is not to name a program.
                let rest = words.as_slice();
                let rest = if rest.first().is_some_and(|w| w == "--") { &rest[1..] } else { rest };
                sorted.arguments.extend_from_slice(rest);
                break;
            }
            continue;
        };
        sorted.option(table, name, word, &mut words)?;
    }
    Ok(sorted)
}

/// What follows one or two dashes; a dash alone is an argument (standard input, by custom).
fn dashed(word: &OsStr) -> Option<&[u8]> {
    let name = word.as_bytes().strip_prefix(b"-")?;
    let name = name.strip_prefix(b"-").unwrap_or(name);
    (!name.is_empty()).then_some(name)
}

type Rest<'a> = std::slice::Iter<'a, OsString>;

impl Words {
    fn option(
        &mut self,
        table: &Command,
        name: &[u8],
        word: &OsStr,
        rest: &mut Rest<'_>,
    ) -> Result<(), String> {
        let (name, value) = match name.iter().position(|b| *b == b'=') {
            Some(at) => (&name[..at], Some(&name[at + 1..])),
            None => (name, None),
        };
        if matches!(name, b"help" | b"h") {
            self.help = true;
            return Ok(());
        }
        if let Some(arg) = find(table, name) {
            return self.push(arg, value, rest);
        }
        if !word.as_bytes().starts_with(b"--") && cluster(table, &word.as_bytes()[1..]) {
            return self.cluster(table, &word.as_bytes()[1..], rest);
        }
        // Without its value: what clap will say is about the name.
        self.options.push(joined(name, None));
        Ok(())
    }

    fn push(&mut self, arg: &Arg, value: Option<&[u8]>, rest: &mut Rest<'_>) -> Result<(), String> {
        let long = arg.get_long().unwrap_or_default();
        if arg.get_action().takes_values() {
            let value = match value {
                Some(value) => value,
                None => rest.next().ok_or_else(|| format!("flag needs an argument: -{long}"))?.as_bytes(),
            };
            // Callers fill in a form: an empty value is an option that is not given, as for runc.
            if !value.is_empty() {
                self.options.push(joined(long.as_bytes(), Some(value)));
            }
            return Ok(());
        }
        match value {
            None | Some(b"true" | b"1" | b"t") => self.options.push(joined(long.as_bytes(), None)),
            Some(b"false" | b"0" | b"f") => {}
            Some(value) => {
                let value = String::from_utf8_lossy(value);
                return Err(format!("invalid boolean value {value:?} for -{long}"));
            }
        }
        Ok(())
    }

    /// `-dt`, `-u1000`, `-tu 1000`: letters of options, the last of which may take a value.
    fn cluster(&mut self, table: &Command, letters: &[u8], rest: &mut Rest<'_>) -> Result<(), String> {
        for (i, letter) in letters.iter().enumerate() {
            let Some(arg) = find(table, &[*letter]) else { continue };
            if arg.get_action().takes_values() {
                let value = &letters[i + 1..];
                return self.push(arg, (!value.is_empty()).then_some(value), rest);
            }
            self.push(arg, None, rest)?;
        }
        Ok(())
    }
}

/// Whether these letters are all options, up to the first that takes a value.
fn cluster(table: &Command, letters: &[u8]) -> bool {
    for letter in letters {
        match find(table, &[*letter]) {
            None => return false,
            Some(arg) if arg.get_action().takes_values() => return true,
            Some(_) => {}
        }
    }
    true
}

fn find<'a>(table: &'a Command, name: &[u8]) -> Option<&'a Arg> {
    let name = std::str::from_utf8(name).ok()?;
    let letter = (name.chars().count() == 1).then(|| name.chars().next()).flatten();
    table.get_arguments().find(|arg| {
        arg.get_long() == Some(name)
            || letter.is_some() && arg.get_short() == letter
            || arg.get_all_aliases().is_some_and(|all| all.contains(&name))
    })
}

fn joined(long: &[u8], value: Option<&[u8]>) -> OsString {
    let mut word = b"--".to_vec();
    word.extend_from_slice(long);
    if let Some(value) = value {
        word.push(b'=');
        word.extend_from_slice(value);
    }
    OsString::from_vec(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ArgAction;

    fn table() -> Command {
        Command::new("x").args([
            Arg::new("bundle").long("bundle").short('b'),
            Arg::new("env").long("env").short('e').action(ArgAction::Append),
            Arg::new("tty").long("tty").short('t').action(ArgAction::SetTrue),
            Arg::new("detach").long("detach").short('d').action(ArgAction::SetTrue),
            Arg::new("no-subreaper").long("no-subreaper").action(ArgAction::SetTrue),
        ])
    }

    fn sorted(options: Options, line: &str) -> Result<(Vec<String>, Vec<String>), String> {
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let words = sort(&table(), options, &words)?;
        let text = |all: Vec<OsString>| all.into_iter().map(|w| w.into_string().unwrap()).collect();
        Ok((text(words.options), text(words.arguments)))
    }

    #[test]
    fn every_form_of_an_option_means_the_same() {
        for (line, options, arguments) in [
            ("--bundle B id", &["--bundle=B"][..], &["id"][..]),
            ("-bundle B id", &["--bundle=B"], &["id"]),
            ("--bundle=B id", &["--bundle=B"], &["id"]),
            ("-bundle=B id", &["--bundle=B"], &["id"]),
            ("-b B id", &["--bundle=B"], &["id"]),
            ("-b=B id", &["--bundle=B"], &["id"]),
            ("-bB id", &["--bundle=B"], &["id"]),
            ("--b B id", &["--bundle=B"], &["id"]),
            ("id --bundle B", &["--bundle=B"], &["id"]),
            ("id -b B more", &["--bundle=B"], &["id", "more"]),
            ("-b -t id", &["--bundle=-t"], &["id"]),
            ("-b -- id", &["--bundle=--"], &["id"]),
            ("-b= id", &[], &["id"]),
            ("--bundle  id", &[], &["id"]),
            ("-e A=1 -e=B=2 --env=C= id", &["--env=A=1", "--env=B=2", "--env=C="], &["id"]),
            ("-no-subreaper id", &["--no-subreaper"], &["id"]),
            ("-dt id", &["--detach", "--tty"], &["id"]),
            ("-dtbB id", &["--detach", "--tty", "--bundle=B"], &["id"]),
            ("-tb B id", &["--tty", "--bundle=B"], &["id"]),
            ("-t=true -d=false id", &["--tty"], &["id"]),
            ("--tty=0 -detach=1 id", &["--detach"], &["id"]),
            ("-- -b id", &[], &["-b", "id"]),
            ("- id", &[], &["-", "id"]),
            ("--wrong id", &["--wrong"], &["id"]),
            ("-wrong=1 id", &["--wrong"], &["id"]),
            ("-dwt id", &["--dwt"], &["id"]),
        ] {
            let (o, a) = sorted(Options::Anywhere, line).unwrap();
            assert_eq!((&o[..], &a[..]), (&own(options)[..], &own(arguments)[..]), "{line}");
        }
    }

    #[test]
    fn the_words_of_another_program_are_left_alone() {
        for (line, options, arguments) in [
            ("-t id sh -b x --env", &["--tty"][..], &["id", "sh", "-b", "x", "--env"][..]),
            ("id -t sh", &[], &["id", "-t", "sh"]),
            ("-t id -- sh -- x", &["--tty"], &["id", "sh", "--", "x"]),
            ("-t -- id sh -t", &["--tty"], &["id", "sh", "-t"]),
            ("id sh --help", &[], &["id", "sh", "--help"]),
        ] {
            let (o, a) = sorted(Options::First, line).unwrap();
            assert_eq!((&o[..], &a[..]), (&own(options)[..], &own(arguments)[..]), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for (line, text) in [
            ("id --bundle", "flag needs an argument: -bundle"),
            ("id -tb", "flag needs an argument: -bundle"),
            ("--tty=maybe id", "invalid boolean value \"maybe\" for -tty"),
        ] {
            assert_eq!(sorted(Options::Anywhere, line), Err(text.to_owned()), "{line}");
        }
    }

    #[test]
    fn help_is_found_among_the_options_only() {
        for (line, help) in
            [("-h", true), ("id --help", true), ("-help", true), ("-b -h", false), ("-- -h", false)]
        {
            let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
            assert_eq!(sort(&table(), Options::Anywhere, &words).unwrap().help, help, "{line}");
        }
    }

    #[test]
    fn values_need_not_be_text() {
        let words = [OsString::from("-b"), OsString::from_vec(b"/\xff".to_vec())];
        let sorted = sort(&table(), Options::Anywhere, &words).unwrap();
        assert_eq!(sorted.options, [OsString::from_vec(b"--bundle=/\xff".to_vec())]);
    }

    fn own(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use clap::ArgAction;

    #[test]
    fn command_lines() {
        let table = Command::new("x").args([
            Arg::new("bundle").long("bundle").short('b'),
            Arg::new("tty").long("tty").short('t').action(ArgAction::SetTrue),
        ]);
        let seeds = ["--bundle\nB\nid", "-tb\nB\nid\n--\n-x", "-b=\n--tty=false\n-", "id\n-h\n--wrong=1"];
        ::fuzz::target("command-lines").seeds(seeds).rounds(10_000).run(|bytes| {
            let words: Vec<OsString> =
                bytes.split(|b| *b == b'\n').map(|word| OsString::from_vec(word.to_vec())).collect();
            let mut taken = false;
            for options in [Options::Anywhere, Options::First] {
                let Ok(sorted) = sort(&table, options, &words) else { continue };
                // Nothing is made up: there are no more words than were given, and what is no option is one of them.
                assert!(sorted.arguments.iter().all(|argument| words.contains(argument)), "{sorted:?}");
                assert!(
                    sorted.options.iter().all(|option| option.as_bytes().starts_with(b"--")),
                    "{sorted:?}"
                );
                taken = true;
            }
            taken
        });
    }
}
