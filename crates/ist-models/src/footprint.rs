//! What any architecture needs to know to tell a batch's [`Footprint`](ist_core::Footprint), with nothing loaded.

use ist_core::burn::tensor::DType;
use ist_core::gradients::count_parameters;
use ist_peft::{Adapter, MethodConfig, Site, SiteKind, TokenCost};

use crate::TokenBatch;

/// The sizes of a rectangular batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// Records.
    pub rows: usize,
    /// Tokens of the longest.
    pub sequence: usize,
    /// Tokens that are predicted, of all records.
    pub predicted: usize,
}

impl BatchShape {
    /// A batch of full rows in which every token but the first is predicted.
    pub fn full(rows: usize, sequence: usize) -> Self {
        Self { rows, sequence, predicted: rows * sequence.saturating_sub(1) }
    }

    /// Tokens, padding included.
    pub fn tokens(&self) -> usize {
        self.rows.saturating_mul(self.sequence)
    }
}

impl From<&TokenBatch> for BatchShape {
    fn from(batch: &TokenBatch) -> Self {
        let [rows, sequence] = batch.input_ids.dims();
        Self { rows, sequence, predicted: batch.predicted_tokens() }
    }
}

/// A module with an adapter on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdaptedSite {
    /// The module.
    pub site: Site,
    /// What it takes for a token.
    pub cost: TokenCost,
    /// Scalars of the adapter.
    pub parameters: usize,
}

impl AdaptedSite {
    /// The adapter of that configuration on `site`, which need not exist yet.
    pub fn planned(config: &dyn MethodConfig, site: &Site) -> Self {
        let cost = if site.kind == SiteKind::Linear {
            config.token_cost(site)
        } else {
            TokenCost::default()
        };
        Self { site: site.clone(), cost, parameters: config.parameters(site) }
    }

    /// That adapter on `site`.
    pub fn of<A: Adapter>(adapter: &A, site: Site) -> Self {
        let cost = if site.kind == SiteKind::Linear {
            adapter.view().token_cost(&site)
        } else {
            TokenCost::default()
        };
        Self { site, cost, parameters: count_parameters(adapter) }
    }
}

/// A model as far as its footprint depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Resident<'a> {
    /// The modules with adapters.
    pub adapted: &'a [AdaptedSite],
    /// What the frozen weights are stored as; i8 for the layers' matrices in eight bits.
    pub storage: DType,
    /// What is computed in.
    pub arithmetic: DType,
}
