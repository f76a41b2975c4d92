// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Test} from "forge-std/Test.sol";
import {Leaving} from "./Leaving.sol";

/// @title Whoever acts in the campaign
contract Handler is Leaving {
    constructor(uint256 lane_) Leaving() {
        lane = lane_;
    }
}

/// @title One campaign over everything that can happen, all invariants after every call
/// @notice The protocol page's numbers 1 to 8 are asserted in `Check`, in the actions and in `Leaving`. It runs in two
/// lanes, which draw differently from the same seeds, so that two cores work. With WATTLINE_CAMPAIGN=1 each run appends
/// "action,attempts,successes" lines to cache/campaign.csv.
abstract contract Campaign is Test {
    string private constant NAMES =
        "deposit,withdraw,grantKey,revokeKey,open,openMany,topUp,settle,settleMany,settleBatch,close,expire,claim,"
        "finalise,collect,rotateKey,setSettler,moveStake,demand,respond,challenge,advance,vote,moveDeposit,proveFault,"
        "payAward,replay,attack,foreignSettle,reenter,settleGas,donate,announceFee,withdrawFees,travel,pay,push,"
        "payPushed,refund,recover,takeAwards";

    Handler private handler;

    function setUp() public {
        handler = new Handler(_lane());
        string[] memory names = vm.split(NAMES, ",");
        bytes4[] memory selectors = new bytes4[](names.length);
        for (uint256 i = 0; i < names.length; ++i) {
            selectors[i] = bytes4(keccak256(bytes(string.concat(names[i], "(uint256)"))));
        }
        targetContract(address(handler));
        targetSelector(FuzzSelector({addr: address(handler), selectors: selectors}));
    }

    function invariant_MoneyIsWhereItBelongs() public view {
        handler.check();
    }

    /// @dev A campaign whose calls fail proves nothing: at least half must do their work. Then everybody leaves.
    function afterInvariant() public {
        string[] memory names = vm.split(NAMES, ",");
        string memory lines = "";
        (uint256 attempts, uint256 successes) = (0, 0);
        for (uint256 i = 0; i < names.length; ++i) {
            (uint128 tried, uint128 done) = handler.tallies(i);
            (attempts, successes) = (attempts + tried, successes + done);
            lines = string.concat(lines, names[i], ",", vm.toString(tried), ",", vm.toString(done), "\n");
        }
        // All at once, because the lanes share the file. The line's own end keeps theirs apart.
        if (vm.envOr("WATTLINE_CAMPAIGN", false)) vm.writeLine("cache/campaign.csv", lines);
        assertGe(2 * successes, attempts, "most calls work");
        handler.checkAll();
        handler.leave();
    }

    function _lane() internal pure virtual returns (uint256);
}

contract FirstCampaignTest is Campaign {
    function _lane() internal pure override returns (uint256) {
        return 1;
    }
}

contract SecondCampaignTest is Campaign {
    function _lane() internal pure override returns (uint256) {
        return 2;
    }
}
