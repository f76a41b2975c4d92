// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Fixture} from "../support/Fixture.sol";
import {TillFixture} from "../support/TillFixture.sol";
import {Attack} from "./Attack.sol";

/// @title What attacks on quotes and their payers need
abstract contract TillAttack is Attack, TillFixture {
    function setUp() public virtual override(Fixture, TillFixture) {
        super.setUp();
    }
}
