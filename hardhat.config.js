import { createRequire } from "node:module";
import { defineConfig } from "hardhat/config";

// The WebAssembly compiler inside the npm package `solc`. Naming it as `path` makes Hardhat skip its
// downloader, so a build needs nothing but node_modules.
const requireHere = createRequire(import.meta.url);
const compiler = (settings) => ({
  version: requireHere("solc/package.json").version,
  path: requireHere.resolve("solc/soljson.js"),
  settings: { evmVersion: "cancun", outputSelection: { "*": { "*": ["storageLayout"] } }, ...settings },
});

// What ships goes through the IR pipeline, which saves a settlement about 1,000 gas. It would cost minutes on the
// tests, so they are compiled the quick way and deploy the contracts from the artifacts: exactly what ships.
const quick = compiler({ optimizer: { enabled: true, runs: 200 } });
// The most runs with which the escrow still fits into what a chain takes.
const shipped = compiler({ viaIR: true, optimizer: { enabled: true, runs: 2_000 } });
// The court is called seldom and holds much: it is built to fit. The register of models is called seldom, too.
const compact = compiler({ viaIR: true, optimizer: { enabled: true, runs: 200 } });

const count = (name, fallback) => Number(process.env[name] ?? fallback);

export default defineConfig({
  paths: { sources: "./contracts", tests: { solidity: "./tests/contracts" } },
  solidity: {
    compilers: [quick],
    overrides: {
      "contracts/Court.sol": compact,
      "contracts/Escrow.sol": shipped,
      "contracts/ModelRegistry.sol": compact,
      "contracts/NodeRegistry.sol": shipped,
      "contracts/Till.sol": compact,
      // Carries the escrow's hot loop, which only the IR pipeline compiles.
      "contracts/mocks/VoucherBook.sol": shipped,
    },
  },
  test: {
    solidity: {
      fsPermissions: { readDirectory: ["./tests/vectors"], writeFile: ["./cache/campaign.csv"] },
      // The counts of continuous integration; smaller ones by environment for a quick look.
      fuzz: { runs: count("WATTLINE_FUZZ_RUNS", 10_000) },
      // Two lanes: 512,000 calls.
      invariant: {
        runs: count("WATTLINE_INVARIANT_RUNS", 2_000),
        depth: count("WATTLINE_INVARIANT_DEPTH", 128),
        failOnRevert: true,
      },
    },
  },
  networks: {
    // `hardhat node` serves the network called "node". Without equal timestamps a burst of blocks would run the
    // chain's clock ahead of the world's, and deadlines would fail.
    node: { type: "edr-simulated", chainType: "l1", chainId: 31_337, allowBlocksWithSameTimestamp: true },
  },
});
