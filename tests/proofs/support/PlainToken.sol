// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title The plainest ERC-20; its balances are made arbitrary by whoever proves something
contract PlainToken is ERC20 {
    constructor() ERC20("Plain", "PLAIN") {}
}
