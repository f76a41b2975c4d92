// Compiles weakened twins and runs the attacks on them: the half of attacks.py that needs Node.
// Usage: node tests/assure/attacks.mjs JOBS.json   from the repository's root, after a build of contracts and attacks
// A job: {name, pattern, contract, file, text}. Without `contract` the attacks meet what ships; with it, `contract` as
// it compiles once `file` holds `text`. One line of JSON a job: {name, abi, tests: [{suite, test, passed, reason}]}.
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import * as edr from "@nomicfoundation/edr";

const SOLC = createRequire(import.meta.url)("solc");
const SHIPPED = ["Escrow", "NodeRegistry", "Court", "Till", "Receiver", "TestDollar"];
const ATTACKS = "artifacts/tests/contracts/attacks";
// The quickest that compiles: the hot loop of the escrow fits on the stack only by way of the IR.
const SETTINGS = {
  Escrow: { viaIR: true, debug: { debugInfo: [] } },
  Court: { optimizer: { enabled: false } },
  NodeRegistry: { optimizer: { enabled: false } },
  Till: { optimizer: { enabled: false } },
  Receiver: { optimizer: { enabled: false } },
};

const artifactOf = (path) => {
  const made = JSON.parse(readFileSync(path, "utf8"));
  const id = { name: made.contractName, source: made.inputSourceName ?? made.sourceName, solcVersion: "0.8.30" };
  const { linkReferences, deployedLinkReferences, bytecode, deployedBytecode } = made;
  return { id, contract: { abi: JSON.stringify(made.abi), bytecode, deployedBytecode, linkReferences, deployedLinkReferences } };
};

const shipped = SHIPPED.map((name) => artifactOf(`artifacts/contracts/${name}.sol/${name}.json`));
const attacks = readdirSync(ATTACKS, { recursive: true })
  .filter((path) => path.endsWith(".json"))
  .map((path) => artifactOf(join(ATTACKS, path)));
const suites = attacks.filter(({ contract }) => contract.bytecode.length > 2 && contract.abi.includes('"test_Attack'));

/** Artifact of a contract with one of its files changed. */
function compiled({ contract, file, text }) {
  const entry = `contracts/${contract}.sol`;
  const read = (path) => (path === file ? text : readFileSync(path.startsWith("@") ? `node_modules/${path}` : path, "utf8"));
  const outputSelection = { [entry]: { [contract]: ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } };
  const settings = { evmVersion: "cancun", outputSelection, ...SETTINGS[contract] };
  const input = { language: "Solidity", sources: { [entry]: { content: read(entry) } }, settings };
  const output = JSON.parse(SOLC.compile(JSON.stringify(input), { import: (path) => ({ contents: read(path) }) }));
  const errors = (output.errors ?? []).filter(({ severity }) => severity === "error");
  if (errors.length > 0) throw new Error(errors[0].formattedMessage);
  const { abi, evm } = output.contracts[entry][contract];
  const [bytecode, deployedBytecode] = [`0x${evm.bytecode.object}`, `0x${evm.deployedBytecode.object}`];
  return { abi: JSON.stringify(abi), bytecode, deployedBytecode, linkReferences: {}, deployedLinkReferences: {} };
}

async function runOn(context, contracts, testPattern) {
  const config = {
    projectRoot: resolve("."),
    hardfork: edr.l1HardforkToString(edr.l1HardforkLatest()),
    localPredeploys: edr.l1GenesisState(edr.l1HardforkLatest()),
    testPattern,
    disableBlockGasLimit: true,
    disableTransactionGasCap: true,
  };
  // A suite sets itself up even if none of its tests is asked for.
  const asked = suites.filter(({ contract }) => contract.abi.includes(`"${testPattern}`));
  const tests = [];
  if (asked.length === 0) return tests;
  let waiting = asked.length;
  await new Promise((done, failed) => {
    const keep = ({ id, testResults }) => {
      for (const { name, status, reason } of testResults) {
        tests.push({ suite: id.name, test: name, passed: status === "Success", reason: reason ?? "" });
      }
      if (--waiting === 0) done();
    };
    const ids = asked.map(({ id }) => id);
    context.runSolidityTests(edr.L1_CHAIN_TYPE, [...attacks, ...contracts], ids, config, {}, keep).catch(failed);
  });
  return tests;
}

const context = new edr.EdrContext();
await context.registerSolidityTestRunnerFactory(edr.L1_CHAIN_TYPE, edr.l1SolidityTestRunnerFactory());
for (const job of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
  let contracts = shipped;
  let abi = "[]";
  if (job.contract) {
    const twin = compiled(job);
    abi = twin.abi;
    contracts = shipped.map((was) => (was.id.name === job.contract ? { ...was, contract: twin } : was));
  }
  const tests = await runOn(context, contracts, job.pattern);
  console.log(JSON.stringify({ name: job.name, abi: JSON.parse(abi), tests }));
}
