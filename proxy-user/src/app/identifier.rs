//! Identities for connections: remembered answers at once, others off the async threads.
use std::{pin::Pin, sync::Arc};

use crate::{
    authorize::{Identifier, LivePolicy, Unidentified},
    base::clock,
    kernel::{Network, Programs, Stand},
    workload::{Identified, Workload, identify::Matcher},
};

/// Asks the [`Matcher`] without holding up the runtime.
#[derive(Clone)]
pub(super) struct HostIdentifier {
    matcher: Arc<Matcher>,
    network: Arc<Network>,
    unidentified: Unidentified,
}

/// Where nothing is denied, everything that is not mediated is open, and told.
fn observed(identified: &Identified, is_open: bool) -> Stand {
    match identified {
        Identified::One(id) if is_open => Stand::Open(id.0),
        Identified::One(id) => Stand::Observed(Some(id.0)),
        Identified::None(_) | Identified::Ambiguous(_) => Stand::Observed(None),
    }
}

impl HostIdentifier {
    /// Tells every answer to the kernel, too.
    pub(super) fn new(programs: Arc<Programs>, network: Arc<Network>, unidentified: Unidentified) -> Self {
        Self { matcher: Arc::new(Matcher::new(programs)), network, unidentified }
    }
}

impl Identifier for HostIdentifier {
    fn identify<'a>(
        &'a self,
        workload: &'a Arc<Workload>,
        live: &'a Arc<LivePolicy>,
    ) -> Pin<Box<dyn Future<Output = Identified> + Send + 'a>> {
        if let Some(answer) = self.matcher.remembered(workload, live.generation()) {
            return Box::pin(std::future::ready(answer));
        }
        let this = self.clone();
        let (workload, live) = (Arc::clone(workload), Arc::clone(live));
        Box::pin(async move {
            let find = move || this.find(&workload, &live);
            match tokio::task::spawn_blocking(find).await {
                Ok(answer) => answer,
                Err(error) => Identified::None(format!("the identification broke off: {error}").into()),
            }
        })
    }

    fn find(&self, workload: &Arc<Workload>, live: &Arc<LivePolicy>) -> Identified {
        let answer = self.matcher.find(workload, live.set(), live.generation());
        let open = match &answer.identified {
            Identified::One(id) => live.set().network_is_open(*id, clock::now()),
            _ => false,
        };
        let stand = match (&answer.identified, self.unidentified) {
            (Identified::None(_), Unidentified::Pass) => Stand::Passes,
            (identified, _) if live.observes() => observed(identified, open),
            (Identified::One(id), _) if open => Stand::Open(id.0),
            (Identified::One(id), _) => Stand::Identity(id.0),
            // Several identities are a fault of the policy, which must not open a way.
            (Identified::None(_), Unidentified::Deny) | (Identified::Ambiguous(_), _) => Stand::Nobody,
        };
        // What a runtime has not written down yet may make it somebody in a moment: the kernel is to ask again.
        let unsettled = workload.container.as_ref().is_some_and(|container| container.is_unsettled());
        if matches!(answer.identified, Identified::One(_)) || !unsettled {
            self.network.stand(workload.facts(), answer.by_start, live.generation(), stand);
        }
        answer.identified
    }
}
