/**
 * Loaded before the tests in CI: property tests then try the same cases every time, so that a change is judged by itself and
 * not by luck. Everywhere else they try new ones.
 */
import fc from "fast-check";

if ((Deno.env.get("CI") ?? "") !== "") fc.configureGlobal({ seed: 20261122 });
