#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Calls on arrays of JAX, which come and go without copies through DLPack; what is allocated is JAX's.

    PYTHONPATH=build/python python3 examples/python/jax_call.py
"""
import jax
import jax.numpy as jnp

import flashinfer_c as flashinfer

keys = jax.random.split(jax.random.key(0), 3)
x = jax.random.normal(keys[0], (4, 256), dtype=jnp.float16)
weight = jax.random.normal(keys[1], (256,), dtype=jnp.float16)
normed = flashinfer.rmsnorm(x, weight, eps=1e-5)
exact = x.astype(jnp.float32)
exact = exact / jnp.sqrt((exact * exact).mean(-1, keepdims=True) + 1e-5) * weight.astype(jnp.float32)
print(type(normed).__name__, normed.dtype, normed.shape, "differs by at most", float(jnp.abs(normed - exact).max()))
assert isinstance(normed, jax.Array) and jnp.allclose(normed, exact, rtol=1e-3, atol=1e-3)

probabilities = flashinfer.sampling.softmax(jax.random.normal(keys[2], (4, 1000), dtype=jnp.float32) * 3)
tokens = flashinfer.sampling.top_k_sampling_from_probs(probabilities, 10, seed=1, offset=0)
allowed = jnp.sort(probabilities, -1)[:, -10]
print("tokens", tokens)
assert (jnp.take_along_axis(probabilities, tokens[:, None], -1)[:, 0] >= allowed).all()
