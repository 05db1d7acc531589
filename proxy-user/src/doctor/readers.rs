//! Where each runtime looks for roots: by which variable, else in which file, as far as that is known of it.

use std::path::{Path, PathBuf};

use super::runtime::{Kind, Runtime};
use super::snapshot::{Files, Snapshot, name_of};

/// Where the system's roots are as one file, on the distributions that we know; the first one that is there counts.
const SYSTEM_FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// The same as folders of links by hash (`openssl rehash`).
const SYSTEM_FOLDERS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// A place where roots are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A file of the system's roots.
    System(PathBuf),
    /// A folder of the system's roots.
    SystemFolder(PathBuf),
    /// A file that a variable names, or one that a library brings.
    File(PathBuf),
    /// Folders that a variable names, with colons between them.
    Folder(PathBuf),
    /// A store of Java.
    Java(PathBuf),
    /// A database of NSS.
    Nss(PathBuf),
    /// In the program itself.
    CompiledIn,
    /// Not known.
    Unknown,
}

/// A place, and the variable that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) place: Place,
    pub(super) variable: Option<&'static str>,
}

/// What can be done so that a reader trusts others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Patch {
    /// The system's store.
    System,
    /// This file.
    File(PathBuf),
    /// The store of this Java.
    Java(PathBuf),
    /// This folder of NSS.
    Nss(PathBuf),
    /// Nothing on the disk.
    Nothing,
}

/// One library or program, and where it finds what it trusts: a root in any of its sources will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reader {
    /// Who reads.
    pub(super) who: &'static str,
    pub(super) sources: Vec<Source>,
    /// Variables can lead it elsewhere, or add to it.
    pub(super) obeys_variables: bool,
    pub(super) patch: Patch,
}

/// All of a process.
pub(super) fn readers(runtime: &Runtime, seen: &Snapshot) -> Vec<Reader> {
    let look = Look { seen };
    match runtime.kind {
        Kind::Curl => vec![look.file("curl", &["CURL_CA_BUNDLE", "SSL_CERT_FILE"], true)],
        Kind::Git => vec![look.file("Git", &["GIT_SSL_CAINFO"], true)],
        Kind::Cargo => vec![look.file("Cargo", &["CARGO_HTTP_CAINFO", "SSL_CERT_FILE"], true)],
        Kind::Wget => vec![look.file("Wget", &[], false)],
        Kind::LibCurl => vec![look.file("libcurl", &[], false)],
        Kind::GnuTls => vec![look.file("GnuTLS", &[], false)],
        Kind::Perl => vec![look.file("LWP", &["PERL_LWP_SSL_CA_FILE", "HTTPS_CA_FILE"], true)],
        Kind::Go => vec![look.openssl("Go's crypto/x509")],
        Kind::Ruby => vec![look.openssl("Ruby's OpenSSL")],
        Kind::Php => vec![look.openssl("PHP's OpenSSL")],
        Kind::DotNet => vec![look.openssl(".NET")],
        Kind::OpenSsl => vec![look.openssl("OpenSSL")],
        Kind::Native => vec![look.openssl("the program")],
        Kind::Python => look.python(runtime.version.as_deref()),
        Kind::Node | Kind::Npm | Kind::Bun => vec![look.node(runtime.kind)],
        Kind::Deno => vec![look.deno()],
        Kind::Java => vec![look.java()],
        Kind::Chromium | Kind::Nss => vec![look.nss(runtime.kind)],
        Kind::CompiledIn => {
            let sources = vec![Source { place: Place::CompiledIn, variable: None }];
            vec![Reader { who: "the program", sources, obeys_variables: false, patch: Patch::Nothing }]
        }
        Kind::Unknown => {
            let sources = vec![Source { place: Place::Unknown, variable: None }];
            vec![Reader { who: "the program", sources, obeys_variables: true, patch: Patch::System }]
        }
    }
}

struct Look<'a> {
    seen: &'a Snapshot,
}

impl Look<'_> {
    fn files(&self) -> &Files {
        &self.seen.files
    }

    fn named(&self, variables: &[&'static str]) -> Option<Source> {
        let (variable, path) = variables.iter().find_map(|name| Some((*name, self.seen.variable(name)?)))?;
        Some(Source { place: Place::File(self.files().absolute(Path::new(path))), variable: Some(variable) })
    }

    fn system_file(&self) -> Option<PathBuf> {
        SYSTEM_FILES.iter().map(PathBuf::from).find(|path| self.files().has(path))
    }

    fn system(&self) -> Source {
        let place = self.system_file().map_or(Place::Unknown, Place::System);
        Source { place, variable: None }
    }

    /// What mends a source: a file that is the system's is not patched by itself.
    fn patch(&self, source: &Source) -> Patch {
        match &source.place {
            Place::File(path)
                if SYSTEM_FILES.iter().any(|known| self.files().are_same(path, Path::new(known))) =>
            {
                Patch::System
            }
            Place::File(path) => Patch::File(path.clone()),
            _ => Patch::System,
        }
    }

    /// The file that one of the variables names, else the system's.
    fn file(&self, who: &'static str, variables: &[&'static str], obeys_variables: bool) -> Reader {
        let source = self.named(variables).unwrap_or_else(|| self.system());
        Reader { who, patch: self.patch(&source), sources: vec![source], obeys_variables }
    }

    /// A file and a folder, each of which a variable can name.
    fn openssl(&self, who: &'static str) -> Reader {
        let file = self.named(&["SSL_CERT_FILE"]).unwrap_or_else(|| self.system());
        let folder = match self.seen.variable("SSL_CERT_DIR") {
            Some(path) => {
                Some(Source { place: Place::Folder(PathBuf::from(path)), variable: Some("SSL_CERT_DIR") })
            }
            None => {
                let found = SYSTEM_FOLDERS.iter().map(PathBuf::from).find(|path| self.files().has(path));
                found.map(|path| Source { place: Place::SystemFolder(path), variable: None })
            }
        };
        let patch = match &folder {
            Some(Source { variable: None, .. }) => Patch::System,
            _ => self.patch(&file),
        };
        Reader { who, sources: std::iter::once(file).chain(folder).collect(), obeys_variables: true, patch }
    }

    fn node(&self, kind: Kind) -> Reader {
        let npm = ["npm_config_cafile", "NPM_CONFIG_CAFILE"];
        // npm's own setting replaces all others.
        if kind == Kind::Npm
            && let Some(source) = self.named(&npm)
        {
            let patch = self.patch(&source);
            return Reader { who: "npm", sources: vec![source], obeys_variables: true, patch };
        }
        let mut sources: Vec<Source> = self.named(&["NODE_EXTRA_CA_CERTS"]).into_iter().collect();
        let options = &self.seen.options;
        if options.openssl_roots {
            sources.extend(self.openssl("").sources);
        }
        // Bun takes the system's without being told.
        if kind == Kind::Bun || options.system_roots || self.seen.variable("NODE_USE_SYSTEM_CA") == Some("1")
        {
            sources.push(self.system());
        }
        let patch = sources.first().map_or(Patch::Nothing, |source| self.patch(source));
        // The system's is the word that is told; what is compiled in never has ours.
        sources.push(Source { place: Place::CompiledIn, variable: None });
        Reader { who: kind.as_str(), sources, obeys_variables: true, patch }
    }

    fn deno(&self) -> Reader {
        let mut sources: Vec<Source> = self.named(&["DENO_CERT"]).into_iter().collect();
        let stores = self.seen.variable("DENO_TLS_CA_STORE").unwrap_or("mozilla");
        if stores.split(',').any(|store| store.trim() == "system") {
            sources.extend(self.openssl("").sources);
        }
        let patch = sources.first().map_or(Patch::Nothing, |source| self.patch(source));
        if stores.split(',').any(|store| store.trim() == "mozilla") {
            sources.push(Source { place: Place::CompiledIn, variable: None });
        }
        Reader { who: "Deno", sources, obeys_variables: true, patch }
    }

    fn java(&self) -> Reader {
        let reader = |path: PathBuf, patch| {
            let sources = vec![Source { place: Place::Java(path), variable: None }];
            Reader { who: "Java", sources, obeys_variables: false, patch }
        };
        if let Some(path) = &self.seen.options.java_store {
            let path = self.files().absolute(Path::new(path));
            return reader(path.clone(), Patch::File(path));
        }
        let library = self.seen.mapping("libjvm.so").map(Path::new);
        // …/lib/server/libjvm.so, or …/lib/amd64/server/libjvm.so of Java 8.
        let home = library.and_then(|path| path.ancestors().find(|path| path.ends_with("lib"))?.parent());
        // /usr/bin/java is a link; what runs is …/bin/java.
        let home = home.or_else(|| Path::new(self.seen.exe.as_deref()?).parent()?.parent());
        let Some(home) = home else {
            let sources = vec![Source { place: Place::Unknown, variable: None }];
            return Reader { who: "Java", sources, obeys_variables: false, patch: Patch::System };
        };
        let security = home.join("lib/security");
        let named = ["jssecacerts", "cacerts"].map(|name| security.join(name));
        let store = named.iter().find(|path| self.files().has(path)).cloned();
        let store = store.unwrap_or_else(|| security.join("cacerts"));
        let leads = self.files().leads(&store).unwrap_or_default();
        // That of distributions is made of the system's roots.
        let is_systems = leads.starts_with("/etc/ssl/") || leads.starts_with("/etc/pki/");
        reader(store, if is_systems { Patch::System } else { Patch::Java(home.to_owned()) })
    }

    fn nss(&self, kind: Kind) -> Reader {
        let home = self.seen.variable("HOME").filter(|_| kind == Kind::Chromium);
        let folder = home.map(|home| Path::new(home).join(".pki/nssdb"));
        let place = folder.clone().map_or(Place::Unknown, Place::Nss);
        let patch = folder.map_or(Patch::Nothing, Patch::Nss);
        let sources =
            vec![Source { place, variable: None }, Source { place: Place::CompiledIn, variable: None }];
        Reader { who: kind.as_str(), sources, obeys_variables: false, patch }
    }

    /// The module ssl, and the libraries with bundles of their own that this Python has.
    fn python(&self, version: Option<&str>) -> Vec<Reader> {
        let bundled = |who, path: PathBuf, variables: &[&'static str]| {
            let own = Source { place: Place::File(path), variable: None };
            let source = self.named(variables).unwrap_or(own);
            let patch = self.patch(&source);
            Reader { who, sources: vec![source], obeys_variables: !variables.is_empty(), patch }
        };
        let mut readers = Vec::new();
        let folders = self.packages(version);
        let find = |name: &str| {
            let paths = folders.iter().map(|folder| folder.join(name));
            paths.into_iter().find(|path| self.files().open(path).is_ok())
        };
        // What is mapped was imported.
        if self.seen.maps("cygrpc")
            && let Some(path) = find("grpc/_cython/_credentials/roots.pem")
        {
            readers.push(bundled("grpcio", path, &["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"]));
        }
        if let Some(path) = find("certifi/cacert.pem") {
            readers.push(bundled("requests", path.clone(), &["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]));
            readers.push(bundled("httpx", path, &["SSL_CERT_FILE"]));
        }
        if let Some(path) = find("botocore/cacert.pem") {
            readers.push(bundled("boto3", path, &["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"]));
        }
        if let Some(path) = find("stripe/data/ca-certificates.crt") {
            readers.push(bundled("stripe", path, &[]));
        }
        let is_pip = self.seen.called.as_deref().is_some_and(|called| name_of(called).starts_with("pip"));
        if is_pip && let Some(path) = find("pip/_vendor/certifi/cacert.pem") {
            readers.push(bundled("pip", path, &["PIP_CERT", "REQUESTS_CA_BUNDLE"]));
        }
        readers.push(self.openssl("Python's ssl (urllib, aiohttp, urllib3)"));
        readers
    }

    /// Folders of packages: of what is mapped, of the environment that it was called in, and of its installation.
    fn packages(&self, version: Option<&str>) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = Vec::new();
        let mut add = |path: PathBuf| {
            if !folders.contains(&path) {
                folders.push(path);
            }
        };
        if let Some(paths) = self.seen.variable("PYTHONPATH") {
            paths
                .split(':')
                .filter(|path| !path.is_empty())
                .for_each(|path| add(self.files().absolute(path.as_ref())));
        }
        for path in &self.seen.mapped {
            for name in ["/site-packages/", "/dist-packages/"] {
                if let Some(at) = path.find(name) {
                    path.get(..at + name.len() - 1).into_iter().for_each(|path| add(PathBuf::from(path)));
                }
            }
        }
        let called = self.seen.called.as_deref().filter(|called| called.contains('/'));
        let called = called.map(|called| self.files().absolute(Path::new(called)));
        let own = [called, self.seen.exe.as_deref().map(PathBuf::from)];
        let prefixes = own.iter().flatten().filter_map(|path| Some(path.parent()?.parent()?.to_owned()));
        let environment = self.seen.variable("VIRTUAL_ENV").map(PathBuf::from);
        let prefixes: Vec<PathBuf> = environment.into_iter().chain(prefixes).collect();
        for prefix in &prefixes {
            if let Some(version) = version {
                add(prefix.join(format!("lib/python{version}/site-packages")));
                add(prefix.join(format!("local/lib/python{version}/dist-packages")));
            }
            add(prefix.join("lib/python3/dist-packages"));
        }
        folders
    }
}
