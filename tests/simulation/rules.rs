//! What has to hold in every world, whatever happens.

use std::time::Instant;

use dorc::model::colour::{ByColour, Colour};
use dorc::model::deployment::{Command, Deployment, Event, Goal, Live, Outcome, Phase, Policy, Saved, Wait};

use crate::world::{Asked, Runs};

/// What holds of the machine by itself.
pub fn of_deployment(deployment: &Deployment, policy: &Policy) {
    let waits = match deployment.phase() {
        Phase::Vacant { .. } | Phase::Steady { .. } => false,
        Phase::Trying { .. } | Phase::Switching { .. } | Phase::Baking { .. } => true,
        Phase::Canary { until, job, .. } => (until.is_some() && !policy.frozen) || job.is_some(),
        Phase::Draining { until, bake, .. } => {
            assert!(until.is_some() || policy.drain.is_none(), "a drain without an end: {deployment:?}");
            until.is_some() || bake.is_some()
        }
    };
    assert_eq!(deployment.wake_at().is_some(), waits, "the deadline of {:?}", deployment.phase());
    of_saved(&deployment.saved(), policy);
}

/// What is saved is a legal start, and starting from it saves the same.
pub fn of_saved(saved: &Saved, policy: &Policy) {
    if let (Some(active), Some((standby, _))) = (saved.active, &saved.standby) {
        assert_ne!(active.release, *standby, "both services have one release: {saved:?}");
    }
    let again = Deployment::new(policy.clone(), saved, Instant::now()).saved();
    assert_eq!(again, Saved { wanted: None, ..saved.clone() });
}

/// While old connections drain, what is active proves itself, or traffic is being moved, no service is replaced.
pub fn of_transition(before: &Phase, event: &Event, commands: &[Command]) {
    let tries = commands.iter().any(|command| matches!(command, Command::Try(..)));
    let over = match before {
        Phase::Draining { bake, .. } => bake.is_none() && matches!(event, Event::Drained(..) | Event::Tick),
        Phase::Baking { .. } => matches!(event, Event::Tick),
        Phase::Canary { .. } => false,
        // No connection was on either service yet.
        Phase::Switching { from: None, .. } => true,
        Phase::Switching { .. } => {
            matches!(event, Event::Moved(_) | Event::NotMoved(..) | Event::Tick)
        }
        _ => true,
    };
    assert!(over || !tries, "{event:?} replaced a service in {before:?}");
}

/// What was only to be ready gets no traffic, also where nothing else has it.
pub fn of_preparing(before: &Phase, event: &Event, commands: &[Command]) {
    let (Phase::Trying { candidate, .. }, Event::Ready(ticket, _)) = (before, event) else { return };
    let prepares = candidate.ticket == *ticket
        && !candidate.asks.is_empty()
        && candidate.asks.iter().all(|ask| matches!(ask.goal, Goal::Ready(_)));
    let moves = |command: &Command| matches!(command, Command::PointAt(..) | Command::Split(..));
    assert!(!prepares || !commands.iter().any(moves), "nobody asked for traffic: {commands:?}");
}

/// The newest job is the one that the phase waits for; a newer one ends the one before.
pub fn of_jobs(commands: &[Command], phase: &Phase) {
    let newest = commands.iter().rev().find_map(|command| match command {
        Command::Try(ticket, _)
        | Command::Verify(ticket, _)
        | Command::PointAt(ticket, _)
        | Command::Drain(ticket, ..)
        | Command::Retire(ticket, ..)
        | Command::Split(ticket, ..) => Some(*ticket),
        _ => None,
    });
    let awaited = match phase {
        Phase::Vacant { .. } | Phase::Steady { .. } | Phase::Baking { .. } => None,
        Phase::Canary { job, .. } => job.map(|(ticket, _)| ticket),
        Phase::Trying { candidate, .. } => Some(candidate.ticket),
        Phase::Switching { ticket, .. } | Phase::Draining { ticket, .. } => Some(*ticket),
    };
    assert!(newest.is_none() || newest == awaited, "nobody waits for {newest:?} in {phase:?}");
}

/// A canary that fails gets nobody any more, and is called bad. What is frozen does not grow by itself.
pub fn of_canary(before: &Deployment, event: &Event, commands: &[Command], policy: &Policy) {
    let Some((canary, _)) = before.canary() else { return };
    let grows = |command: &Command| matches!(command, Command::Split(..) | Command::PointAt(..));
    let by_itself = matches!(event, Event::Tick) && commands.iter().any(grows);
    assert!(!(policy.frozen && by_itself), "it is frozen: {commands:?}");
    let fails = match event {
        Event::Exited(colour, _) => *colour == canary.colour,
        Event::Unhealthy(live, _) => *live == canary,
        _ => false,
    };
    let ends =
        |command: &Command| matches!(command, Command::Retire(_, colour, _) if *colour == canary.colour);
    let is_bad = |command: &Command| matches!(command, Command::MarkBad(bad, _) if *bad == canary.release);
    assert!(!fails || (commands.iter().any(ends) && commands.iter().any(is_bad)), "{event:?}: {commands:?}");
}

/// What fails while it bakes is left at once, for what is still warm, and called bad.
pub fn of_bake(before: &Deployment, event: &Event, commands: &[Command]) {
    let Some(active) = before.active().filter(|_| before.is_baking()) else { return };
    let fails = match event {
        Event::Exited(colour, _) => *colour == active.colour,
        Event::Unhealthy(live, _) => *live == active,
        _ => false,
    };
    let leaves = |command: &Command| matches!(command, Command::PointAt(_, to) if to.colour != active.colour);
    let is_bad = |command: &Command| matches!(command, Command::MarkBad(bad, _) if *bad == active.release);
    assert!(
        !fails || (commands.iter().any(leaves) && commands.iter().any(is_bad)),
        "{event:?} is not answered: {commands:?}"
    );
    let back = |command: &Command| matches!(command, Command::Answer(_, Outcome::RolledBack { .. }));
    assert!(!commands.iter().any(back), "rolled back before the route moved");
}

/// What has proved itself is not left at once; whether the other one is better is asked only where the app wants that.
pub fn of_loyalty(before: &Deployment, event: &Event, commands: &[Command], policy: &Policy) {
    let fails = matches!(event, Event::Exited(..) | Event::Unhealthy(..));
    let Some(active) = before.active().filter(|_| fails && !before.is_baking()) else { return };
    let ended = matches!(event, Event::Exited(colour, _) if *colour == active.colour);
    for command in commands {
        match command {
            Command::PointAt(..) => panic!("{event:?}: {commands:?}"),
            Command::Verify(..) => assert!(policy.failover && ended, "{event:?}: {commands:?}"),
            _ => {}
        }
    }
}

/// A candidate never comes up where traffic goes.
pub fn of_try(live: Live, route: Option<Live>, deployment: &Deployment) {
    assert!(route.is_none_or(|to| to.colour != live.colour), "{live:?} replaces what gets the traffic");
    assert!(deployment.active().is_none_or(|active| active.colour != live.colour), "{live:?} is active");
}

/// Traffic goes only to what was found ready, and the decision is on disk before.
pub fn of_point_at(live: Live, services: &ByColour<Option<Runs>>, disk: &Saved) {
    let service = services[live.colour].as_ref().expect("traffic is sent to a service that runs");
    assert_eq!(service.release, live.release, "traffic is sent to another release");
    assert!(service.ready, "traffic is sent to {live:?}, which was not found ready");
    assert_eq!(disk.active, Some(live), "the decision is not on disk");
}

/// What is on disk of the canary is what was decided, before the route follows.
pub fn of_canary_on_disk(deployment: &Deployment, disk: &Saved) {
    assert_eq!(
        disk.canary.as_ref(),
        deployment.canary().map(|(_, plan)| plan),
        "the decision is not on disk"
    );
}

/// A share goes only to what was found ready.
pub fn of_split(live: Live, services: &ByColour<Option<Runs>>) {
    let service = services[live.colour].as_ref().expect("a share goes to a service that runs");
    assert!(service.release == live.release && service.ready, "a share goes to {live:?}");
}

/// Nobody has a share once the canary is over.
pub fn of_share(deployment: &Deployment, split: Option<Live>) {
    let lasts =
        matches!(deployment.phase(), Phase::Canary { .. } | Phase::Switching { .. } | Phase::Draining { .. });
    assert!(split.is_none() || lasts, "{split:?} has a share of the clients in {deployment:?}");
}

/// The route points at a service that runs.
pub fn of_route(route: Option<Live>, services: &ByColour<Option<Runs>>) {
    if let Some(live) = route {
        let runs = services[live.colour].as_ref().map(|runs| runs.release);
        assert_eq!(runs, Some(live.release), "traffic goes to {live:?}");
    }
}

/// The answer says what is true, and what was asked for.
pub fn of_answer(asked: &Asked, outcome: &Outcome, route: Option<Live>) {
    let active = match outcome {
        Outcome::Done { active, .. } | Outcome::RolledBack { active, .. } => active,
        _ => return,
    };
    assert_eq!(route, Some(*active), "done, but traffic goes elsewhere");
    if let Outcome::RolledBack { failed, .. } = outcome {
        return assert_ne!(failed.release, active.release, "{asked:?}");
    }
    match asked.ask.goal {
        Goal::Colour(colour) => assert_eq!(active.colour, colour, "{asked:?}"),
        Goal::Release(release) => assert_eq!(active.release, release, "{asked:?}"),
        Goal::Canary(_) => {}
        Goal::Ready(_) => panic!("traffic moved for {asked:?}"),
        Goal::Other => {}
    }
}

/// Who does not wait has an answer unless the route is just being moved.
pub fn of_impatience(asked: &Asked, deployment: &Deployment) {
    if asked.ask.wait == Wait::Moved && !asked.answered && !asked.gone {
        let phase = deployment.phase();
        assert!(
            matches!(phase, Phase::Switching { .. } | Phase::Canary { job: Some(_), .. }),
            "{asked:?} waits in {phase:?}"
        );
    }
}

/// The two colours are never the same release.
pub fn of_colours(services: &ByColour<Option<Runs>>) {
    if let [Some(one), Some(other)] = Colour::BOTH.map(|colour| services[colour].as_ref()) {
        assert_ne!(one.release, other.release);
    }
}
