// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Test} from "forge-std/Test.sol";
import {Attacks} from "./Attacks.sol";

/// @title Whoever acts in the campaign
contract Handler is Attacks {}

/// @title One campaign over everything that can happen, all invariants after every call
/// @notice The protocol page's numbers 1, 2, 3, 4, 5 (as far as time goes) and 8 are asserted in `World.check` and in
/// the actions. With WATTLINE_CAMPAIGN=1 each run appends "action,attempts,successes" lines to cache/campaign.csv.
contract CampaignTest is Test {
    uint256 private constant _FEW = 10;

    Handler private _handler;

    function setUp() public {
        _handler = new Handler();
        bytes4[] memory selectors = new bytes4[](22);
        selectors[0] = _handler.deposit.selector;
        selectors[1] = _handler.withdraw.selector;
        selectors[2] = _handler.donate.selector;
        selectors[3] = _handler.open.selector;
        selectors[4] = _handler.openMany.selector;
        selectors[5] = _handler.topUp.selector;
        selectors[6] = _handler.settle.selector;
        selectors[7] = _handler.settleMany.selector;
        selectors[8] = _handler.close.selector;
        selectors[9] = _handler.expire.selector;
        selectors[10] = _handler.collect.selector;
        selectors[11] = _handler.rotateKey.selector;
        selectors[12] = _handler.setSettler.selector;
        selectors[13] = _handler.moveStake.selector;
        selectors[14] = _handler.announceFee.selector;
        selectors[15] = _handler.withdrawFees.selector;
        selectors[16] = _handler.travel.selector;
        selectors[17] = _handler.replay.selector;
        selectors[18] = _handler.attack.selector;
        selectors[19] = _handler.foreignSettle.selector;
        selectors[20] = _handler.reenter.selector;
        selectors[21] = _handler.settleGas.selector;
        targetContract(address(_handler));
        targetSelector(FuzzSelector({addr: address(_handler), selectors: selectors}));
    }

    function invariant_MoneyIsWhereItBelongs() public view {
        _handler.check();
    }

    /// @dev A campaign whose calls fail proves nothing: at least half of every action's calls must do their work.
    function afterInvariant() public {
        bool report = vm.envOr("WATTLINE_CAMPAIGN", false);
        for (uint256 i = 0; i < _handler.actionCount(); ++i) {
            string memory action = _handler.actions(i);
            (uint256 attempts, uint256 successes) = _handler.tallies(action);
            if (report) {
                string memory counts = string.concat(",", vm.toString(attempts), ",", vm.toString(successes));
                vm.writeLine("cache/campaign.csv", string.concat(action, counts));
            }
            if (attempts >= _FEW) assertGe(2 * successes, attempts, action);
        }
    }
}
