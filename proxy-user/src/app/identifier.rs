//! Identities for connections: remembered answers at once, others off the async threads.
use std::{pin::Pin, sync::Arc};

use crate::{
    authorize::{Identifier, LivePolicy},
    workload::{Identified, Workload, identify::Matcher},
};

/// Asks the [`Matcher`] without holding up the runtime.
#[derive(Default)]
pub(super) struct HostIdentifier {
    matcher: Arc<Matcher>,
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
        let (matcher, workload, live) = (Arc::clone(&self.matcher), Arc::clone(workload), Arc::clone(live));
        Box::pin(async move {
            let find = move || matcher.find(&workload, live.set(), live.generation());
            match tokio::task::spawn_blocking(find).await {
                Ok(answer) => answer,
                Err(error) => Identified::None(format!("the identification broke off: {error}").into()),
            }
        })
    }
}
