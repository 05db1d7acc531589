//! Many short processes at once: each call is its own process's, and none is lost.

use std::collections::HashMap;

use tests::World;

#[test]
fn in_a_storm_of_short_processes_every_call_has_the_identity_of_its_own_program() {
    const CALLS: usize = 200;
    const PROGRAMS: [&str; 5] = ["ant", "bee", "cat", "dog", "elk"];
    let world = World::new();
    let programs = PROGRAMS.map(|name| {
        // The last one has no policy: it must get nobody else's.
        if name != "elk" {
            world.identity(name, &format!("exe = \"{{root}}/bots/{name}\""));
        }
        world.copy(tests::built("actor"), &format!("bots/{name}"))
    });
    world.daemon();
    let count = CALLS.to_string();
    let told = world.bot("actor").args(["storm", &count, "203.0.113.10:80"]).args(programs).run();
    assert_eq!(told.code, Some(0), "{told:?}");
    let started: HashMap<usize, (u32, &str)> = told
        .stdout
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[0].parse().unwrap(), (words[1].parse().unwrap(), words[2]))
        })
        .collect();
    assert_eq!(started.len(), CALLS);
    let records = world.journal();
    let decisions: Vec<_> = records.iter().filter(|record| record["kind"] == "decision").collect();
    for (number, (pid, status)) in started {
        let name = PROGRAMS[number % PROGRAMS.len()];
        let path = format!("/v1/storm/{name}/{number}");
        let of_it: Vec<_> = decisions.iter().filter(|decision| decision["path"] == path.as_str()).collect();
        assert_eq!(of_it.len(), 1, "{path}: {of_it:?}");
        let decision = of_it[0];
        assert_eq!(decision["workload"]["pid"], pid, "{decision}");
        let (identity, verdict, expected) = match name {
            "elk" => (serde_json::Value::Null, "deny", "403"),
            name => (name.into(), "allow", "200"),
        };
        assert_eq!((&decision["identity"], &decision["verdict"]), (&identity, &verdict.into()), "{decision}");
        assert_eq!(status, expected, "{decision}");
    }
}
