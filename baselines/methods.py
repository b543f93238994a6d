"""Every baseline, for the registry."""

from __future__ import annotations

from wpt_bench.baselines import awac, cql, drqv2, explore, iql, jsrl_bc, mt_bc, rlpd, sac, td3_bc, uds

METHODS = (
    *iql.METHODS,
    *td3_bc.METHODS,
    *cql.METHODS,
    awac.METHOD,
    rlpd.METHOD,
    mt_bc.METHOD,
    uds.METHOD,
    explore.METHOD,
    jsrl_bc.METHOD,
    sac.METHOD,
    drqv2.METHOD,
)
