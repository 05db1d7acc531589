//! Which of its arguments an interpreter takes for its script.
//!
//! Only what is surely understood counts: a script is named when nothing but options that are known to add no code stand
//! before it. `-c`, `-m`, `-e`, `-`, and every option that is not listed: no script.

/// How an interpreter reads its arguments.
struct Interpreter {
    /// File names, without a version behind (`python3.11` is `python`).
    names: &'static [&'static str],
    /// Letters of options that may stand alone or together (`-uB`).
    letters: &'static str,
    /// Whole options, or their beginnings where they end with `=`.
    words: &'static [&'static str],
    /// The option that the script must follow at once, if there is one.
    announced: Option<&'static str>,
    /// Whether a name without a slash is looked up elsewhere than in the working directory.
    searches: bool,
    /// What is no script in its place, but a command of the interpreter's own.
    commands: &'static [&'static str],
    /// Whether `@name` stands for the arguments in the file `name`, also in the place of the script.
    reads_arguments: bool,
}

const PLAIN: Interpreter = Interpreter {
    names: &[],
    letters: "",
    words: &[],
    announced: None,
    searches: false,
    commands: &[],
    reads_arguments: false,
};

const INTERPRETERS: [Interpreter; 6] = [
    Interpreter { names: &["python", "pypy"], letters: "bBdEIOPqRsSuv", ..PLAIN },
    Interpreter {
        names: &["node", "nodejs"],
        words: &[
            "--enable-source-maps",
            "--max-old-space-size=",
            "--no-deprecation",
            "--no-warnings",
            "--trace-warnings",
            "--unhandled-rejections=",
            "--use-openssl-ca",
            "--use-system-ca",
        ],
        commands: &["inspect", "debug"],
        ..PLAIN
    },
    // zsh reads files of whoever starts it, whatever its arguments are.
    Interpreter { names: &["bash", "dash", "sh"], letters: "efuvxCE", searches: true, ..PLAIN },
    Interpreter { names: &["perl"], letters: "wWtT", ..PLAIN },
    Interpreter { names: &["ruby"], letters: "w", ..PLAIN },
    Interpreter {
        names: &["java"],
        words: &["-server", "-Xms", "-Xmx", "-Xss"],
        announced: Some("-jar"),
        reads_arguments: true,
        ..PLAIN
    },
];

/// Why arguments name no script, as the end of "it executes …".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoScript {
    /// The executable is none of those that are known to take scripts.
    NotAnInterpreter,
    /// It was started without one: it reads code from its input.
    NoArgument,
    /// Something stands before it that may be code, or bring code.
    Option,
}

/// The script among the arguments (`argv`, from `argv[0]` on) of an interpreter with this file name.
pub(super) fn script<'a>(
    file_name: &str,
    mut arguments: impl Iterator<Item = &'a [u8]>,
) -> Result<&'a [u8], NoScript> {
    let interpreter = of(file_name).ok_or(NoScript::NotAnInterpreter)?;
    // A shell whose name begins so is that of a login: it runs the profile of whatever HOME says first.
    if arguments.next().is_some_and(|name| name.first() == Some(&b'-')) {
        return Err(NoScript::Option);
    }
    let mut announced = interpreter.announced.is_none();
    for argument in arguments {
        let is_option = argument.first() == Some(&b'-') || interpreter.means_otherwise(argument);
        if announced && interpreter.announced.is_some() {
            // What follows the announcement is the script, whatever it looks like.
            return if is_option { Err(NoScript::Option) } else { Ok(argument) };
        }
        if is_option {
            if interpreter.announced.is_some_and(|option| option.as_bytes() == argument) {
                announced = true;
            } else if !interpreter.knows(argument) {
                return Err(NoScript::Option);
            }
        } else if !announced || argument.is_empty() || (interpreter.searches && !argument.contains(&b'/')) {
            return Err(NoScript::Option);
        } else {
            return Ok(argument);
        }
    }
    Err(NoScript::NoArgument)
}

fn of(file_name: &str) -> Option<&'static Interpreter> {
    let version = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
    let name = file_name.trim_end_matches(version);
    INTERPRETERS.iter().find(|interpreter| interpreter.names.contains(&name))
}

impl Interpreter {
    /// Whether an argument that is no option names no script either.
    fn means_otherwise(&self, argument: &[u8]) -> bool {
        self.commands.iter().any(|command| command.as_bytes() == argument)
            || (self.reads_arguments && argument.first() == Some(&b'@'))
    }

    /// Whether an option is known to bring no code.
    fn knows(&self, option: &[u8]) -> bool {
        let Ok(option) = std::str::from_utf8(option) else { return false };
        let word = |known: &&str| match known.ends_with('=') || known.starts_with("-X") {
            true => option.starts_with(*known),
            false => option == *known,
        };
        let letters = option.strip_prefix('-').unwrap_or_default();
        self.words.iter().any(word)
            || (!letters.is_empty() && letters.chars().all(|letter| self.letters.contains(letter)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<String, NoScript> {
        let file_name = text.split(' ').next().unwrap().rsplit('/').next().unwrap();
        script(file_name, text.split(' ').map(str::as_bytes))
            .map(|script| String::from_utf8_lossy(script).into_owned())
    }

    #[test]
    fn a_script_is_the_first_argument_behind_options_that_bring_no_code() {
        for (command, script) in [
            ("/usr/bin/python3.11 /opt/r.py -c x", "/opt/r.py"),
            ("python3 -uB -I ./r.py", "./r.py"),
            ("python r.py", "r.py"),
            ("node --max-old-space-size=512 --no-warnings /opt/r.js", "/opt/r.js"),
            ("bash -eu /opt/r.sh", "/opt/r.sh"),
            ("perl -w r.pl", "r.pl"),
            ("java -Xmx1g -jar /opt/r.jar -x", "/opt/r.jar"),
        ] {
            assert_eq!(of(command), Ok(script.to_owned()), "{command}");
        }
    }

    #[test]
    fn code_from_elsewhere_is_no_script() {
        for command in [
            "python3 -c print(1) /opt/r.py",
            "python3 -m r /opt/r.py",
            "python3 - /opt/r.py",
            "python3 -i /opt/r.py",
            "python3 -uc /opt/r.py",
            "python3 -X importtime /opt/r.py",
            "python3 -Werror::evil.x /opt/r.py",
            "node -r /tmp/evil.js /opt/r.js",
            "node --require=/tmp/evil.js /opt/r.js",
            "node --import data:text/javascript,x /opt/r.js",
            "node -e x /opt/r.js",
            "bash -c x /opt/r.sh",
            "bash --rcfile /tmp/evil -i /opt/r.sh",
            "bash -s /opt/r.sh",
            "bash r.sh",
            "perl -e x r.pl",
            "perl -Mevil r.pl",
            "ruby -revil r.rb",
            "java -cp /tmp -jar /opt/r.jar",
            "java -javaagent:/tmp/x.jar -jar /opt/r.jar",
            "java -jar -version",
            "java -jar @arguments",
            "java @arguments -jar /opt/r.jar",
            "node inspect /opt/r.js",
            "node debug",
            "java Main",
            "python3 ",
        ] {
            assert_eq!(of(command), Err(NoScript::Option), "{command}");
        }
        let login: [&[u8]; 2] = [b"-/usr/bin/bash", b"/opt/r.sh"];
        assert_eq!(script("bash", login.into_iter()), Err(NoScript::Option));
        assert_eq!(of("python3"), Err(NoScript::NoArgument));
        assert_eq!(of("python3 -u"), Err(NoScript::NoArgument));
        assert_eq!(of("java -jar"), Err(NoScript::NoArgument));
        for command in ["curl /opt/r.py", "zsh /opt/r.sh", "php r.php", "pythonx /opt/r.py"] {
            assert_eq!(of(command), Err(NoScript::NotAnInterpreter), "{command}");
        }
    }
}
