// Compiles Solidity and runs Solidity tests without leaving the process: one JSON request a line on stdin, one JSON
// answer a line on stdout. Compiler and test runner are those of `hardhat test solidity`; nothing is written to disk,
// and a mutant is nothing but other bytecode under the name of a contract.
//
// Usage: node worker.mjs TREE    (TREE has contracts, tests, hardhat.config.js and node_modules)
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join, posix } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const tree = process.argv[2];
const requireThere = createRequire(join(tree, "package.json"));
const solc = requireThere("solc");
const edr = createRequire(requireThere.resolve("hardhat"))("@nomicfoundation/edr");
const config = (await import(pathToFileURL(join(tree, "hardhat.config.js")).href)).default;

const HARDFORK = edr.OSAKA; // what Hardhat's test runner takes by default
const GAS_PER_TEST = 2_000_000_000n; // an endless loop ends here
const COMPILER = config.solidity.compilers[0];
const CODE = ["abi", "evm.bytecode", "evm.deployedBytecode"];

/* SOURCES */

const remappings = readFileSync(join(tree, "remappings.txt"), "utf8").split("\n").filter(Boolean).map((line) => line.split("="));
const sources = {};
const imports = {};

function place(name) {
  const [from, to] = remappings.find(([prefix]) => name.startsWith(prefix)) ?? ["", ""];
  if (from) return join(tree, to, name.slice(from.length));
  return existsSync(join(tree, name)) ? join(tree, name) : join(tree, "node_modules", name);
}

function read(name) {
  if (name in sources) return;
  sources[name] = readFileSync(place(name), "utf8");
  const found = sources[name].matchAll(/^\s*import\s[^;]*?["']([^"']+)["']\s*;/gm);
  imports[name] = [...found].map(([, path]) => (path.startsWith(".") ? posix.join(posix.dirname(name), path) : path));
  imports[name].forEach(read);
}

function readBelow(folder) {
  for (const entry of readdirSync(join(tree, folder), { recursive: true })) {
    if (entry.endsWith(".sol")) read(posix.join(folder, entry));
  }
}

function closure(names) {
  const seen = new Set(names);
  for (const name of seen) imports[name].forEach((other) => seen.add(other));
  return [...seen];
}

/* COMPILER */

/** What the configuration says of a file, without the hash of its sources, with which all bytecode would differ. */
function settingsOf(file) {
  const { settings } = config.solidity.overrides?.[file] ?? COMPILER;
  return { ...settings, metadata: { bytecodeHash: "none" } };
}

/** Compiles contracts ("file:name", or "file:*") of one setting with some files replaced; throws the first error. */
function compile(targets, changed, settings, wanted = CODE) {
  const files = [...new Set(targets.map((target) => target.split(":")[0]))];
  const outputSelection = {};
  for (const target of targets) {
    const [file, name] = target.split(":");
    (outputSelection[file] ??= {})[name] = wanted;
  }
  const content = (name) => ({ content: changed[name] ?? sources[name] });
  const input = {
    language: "Solidity",
    sources: Object.fromEntries(closure(files).map((name) => [name, content(name)])),
    settings: { ...settings, outputSelection },
  };
  const output = JSON.parse(solc.compile(JSON.stringify(input)));
  const errors = (output.errors ?? []).filter(({ severity }) => severity === "error");
  if (errors.length > 0) throw new Error(errors[0].formattedMessage);
  return output;
}

function codeOf(output) {
  const code = {};
  for (const [file, contracts] of Object.entries(output.contracts ?? {})) {
    for (const [name, { abi, evm }] of Object.entries(contracts)) {
      code[`${file}:${name}`] = {
        abi: JSON.stringify(abi),
        bytecode: `0x${evm.bytecode.object}`,
        linkReferences: evm.bytecode.linkReferences,
        deployedBytecode: `0x${evm.deployedBytecode.object}`,
        deployedLinkReferences: evm.deployedBytecode.linkReferences,
      };
    }
  }
  return code;
}

/* TEST RUNNER */

const artifactId = (key) => ({ name: key.split(":")[1], source: key.split(":")[0], solcVersion: COMPILER.version });
let context;

async function runSuites({ code, suites, fuzzRuns, campaign, exclude, seed }) {
  if (context === undefined) {
    context = new edr.EdrContext();
    await context.registerSolidityTestRunnerFactory(edr.L1_CHAIN_TYPE, edr.l1SolidityTestRunnerFactory());
  }
  const { fsPermissions = {}, invariant = {} } = config.test.solidity;
  const reads = (fsPermissions.readDirectory ?? []).map((path) => ({ access: edr.FsAccessPermission.ReadDirectory, path }));
  const options = {
    projectRoot: tree,
    hardfork: HARDFORK,
    localPredeploys: edr.l1GenesisState(edr.l1HardforkFromString(HARDFORK)),
    fsPermissions: reads,
    gasLimit: GAS_PER_TEST,
    disableBlockGasLimit: true,
    disableTransactionGasCap: true,
    collectStackTraces: edr.CollectStackTraces.OnFailure,
    excludeTestPattern: exclude || undefined,
    fuzz: { runs: fuzzRuns, seed },
    invariant: { failOnRevert: invariant.failOnRevert, runs: campaign.runs, depth: campaign.depth, shrinkRunLimit: 0 },
  };
  const artifacts = Object.entries(code).map(([key, contract]) => ({ id: artifactId(key), contract }));
  const failures = [];
  let passed = 0;
  await new Promise((resolve, reject) => {
    let left = suites.length;
    const done = (suite) => {
      for (const test of suite.testResults) {
        if (test.status === "Failure") failures.push([`${suite.id.source}:${suite.id.name}.${test.name}`, test.reason ?? ""]);
        else passed += 1;
      }
      left -= 1;
      if (left === 0) resolve();
    };
    context
      .runSolidityTests(edr.L1_CHAIN_TYPE, artifacts, suites.map(artifactId), options, {}, done)
      .catch(reject);
  });
  return { passed, failures: failures.sort() };
}

/* REQUESTS */

let base = {};
const answers = {
  /** Every file, what it imports, and the syntax trees of the files named. */
  survey({ folders, parsed }) {
    folders.forEach(readBelow);
    const wanted = Object.keys(sources).filter((name) => parsed.some((prefix) => name.startsWith(prefix)));
    const output = compile(wanted.map((name) => `${name}:`), {}, COMPILER.settings, ["ast"]);
    const asts = Object.fromEntries(wanted.map((name) => [name, output.sources[name].ast]));
    const closures = Object.fromEntries(Object.keys(sources).map((name) => [name, closure([name])]));
    return { asts, closures, sources: Object.fromEntries(wanted.map((name) => [name, sources[name]])) };
  },
  /** Bytecode by "file:name", or `error`: what the compiler said. */
  compile({ targets, changed }) {
    const groups = Map.groupBy(targets, (target) => JSON.stringify(settingsOf(target.split(":")[0])));
    try {
      const outputs = [...groups].map(([settings, group]) => codeOf(compile(group, changed, JSON.parse(settings))));
      return { code: Object.assign({}, ...outputs) };
    } catch (error) {
      return { error: error.message };
    }
  },
  /** The code on which every run stands; a run's own code replaces some of it. */
  base({ code }) {
    base = code;
    return {};
  },
  test: (request) => runSuites({ ...request, code: { ...base, ...request.code } }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  const answer = await answers[request.op](request);
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
