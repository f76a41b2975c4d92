// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {INodeRegistry, Provider} from "../../../contracts/interfaces/INodeRegistry.sol";
import {SignedReceipt} from "../../../contracts/types/Claims.sol";
import {Open} from "../../../contracts/types/Messages.sol";
import {Attack} from "./Attack.sol";

/// @title Attacks 31 to 36: stake
/// @notice 36: there are no shares and no factors that somebody could be first to set; stake is counted in atoms.
contract StakeAttack is Attack {
    function test_Attack31_StakeOnItsWayOutIsStillAtStake() public {
        (Open memory terms,) = _session(100);
        SignedReceipt memory job = _job(terms, 1, 10);
        vm.prank(provider);
        registry.requestUnstake(MIN_STAKE);
        (bool ok,) = address(court).call(_proofOfTwo(terms, job));
        assertTrue(ok, "31: a fault can be proven while stake is leaving");
        assertEq(registry.provider(provider).unstaking, 0, "31: leaving ahead of a penalty saves nothing");
        vm.warp(START + UNSTAKE_DELAY);
        bytes memory call = abi.encodeCall(INodeRegistry.withdrawStake, ());
        bytes4 error = INodeRegistry.NodeRegistry_NothingUnstaking.selector;
        _refused(provider, address(registry), call, error, "31: what was taken does not leave");
    }

    function test_Attack32_TheDelayOutlastsEveryWindow() public {
        uint48 windows = MAX_SESSION + GRACE + DISPUTE;
        assertEq(_registryWith(windows), address(0), "32: a delay as long as the windows is too short");
        assertEq(_registryWith(0), address(0), "32: no delay is too short");
        assertNotEq(_registryWith(windows + 1), address(0), "32: a second more is enough");
        assertGe(registry.DISPUTE_SECONDS(), court.LONGEST_SECONDS(), "32: the longest case is inside the windows");
    }

    function test_Attack33_NobodyElseChangesAProvider() public {
        bytes4 error = INodeRegistry.NodeRegistry_NotOwner.selector;
        bytes memory call = abi.encodeCall(INodeRegistry.rotateNodeKey, (nodeId, stranger, 0));
        _refused(stranger, address(registry), call, error, "33: only the owner gives a node a key");
        call = abi.encodeCall(INodeRegistry.setSettler, (nodeId, stranger));
        _refused(stranger, address(registry), call, error, "33: only the owner names a settler");
        call = abi.encodeCall(INodeRegistry.setMetadata, (nodeId, "evil"));
        _refused(stranger, address(registry), call, error, "33: only the owner describes a node");
        _fund(stranger);
        vm.startPrank(stranger);
        registry.register("");
        registry.stake(MIN_STAKE);
        registry.requestUnstake(MIN_STAKE);
        vm.stopPrank();
        assertEq(registry.provider(provider).staked, MIN_STAKE, "33: others move only their own stake");
        assertEq(registry.signerAt(nodeId, 1), nodeKey.addr, "33: a node keeps its key");
    }

    function test_Attack34_AFaultCostsOnceAndNoMoreThanThereIs() public {
        (Open memory terms,) = _session(1000e6);
        vm.prank(provider);
        registry.stake(1500e6);
        SignedReceipt memory job = _job(terms, 1, 100e6);
        (bool ok,) = address(court).call(_proofOfTwo(terms, job));
        assertTrue(ok, "34: two receipts are a fault");
        assertEq(registry.provider(provider).staked, 500e6, "34: the minimum stake and ten times the job");

        bytes4 error = ICourt.Court_AlreadyProven.selector;
        _refused(stranger, address(court), _proofOfTwo(terms, job), error, "34: one fault costs once");
        (ok,) = address(court).call(_proofOfTwo(terms, _job(terms, 2, 100e6)));
        assertTrue(ok, "34: another fault costs again");
        Provider memory left = registry.provider(provider);
        assertEq(left.staked + left.unstaking, 0, "34: more than there is takes what there is");
        assertLe(registry.slashed(), token.balanceOf(address(registry)), "34: what was taken is there");
    }

    function test_Attack35_OneStakeStandsBehindOneClaim() public {
        (Open memory a,) = _session(900e6, 1);
        (Open memory b,) = _session(900e6, 2);
        _claim(a, _job(a, 1, 600e6));
        bytes memory call = abi.encodeCall(IEscrow.claim, (b, _one(_job(b, 1, 600e6))));
        bytes4 error = INodeRegistry.NodeRegistry_AboveFreeStake.selector;
        _refused(settler, address(escrow), call, error, "35: stake behind one claim does not back another");
        call = abi.encodeCall(INodeRegistry.requestUnstake, (600e6));
        error = INodeRegistry.NodeRegistry_AboveStake.selector;
        _refused(provider, address(registry), call, error, "35: stake behind a claim does not leave");
    }

    function test_Attack36_TheFirstStakerTakesNothingFromTheNext() public {
        vm.prank(provider);
        assertTrue(token.transfer(address(registry), 500e6));
        _fund(stranger);
        vm.startPrank(stranger);
        registry.register("");
        registry.stake(MIN_STAKE);
        vm.stopPrank();
        assertEq(registry.provider(stranger).staked, MIN_STAKE, "36: a donation does not change what others stake");
        assertEq(registry.provider(provider).staked, MIN_STAKE, "36: a donation is not staked");
    }

    function _registryWith(uint48 delay) private returns (address) {
        address registryAt = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        IEscrow other = _deployEscrow(address(token), registryAt, treasury, MAX_SESSION);
        return _create("NodeRegistry.sol:NodeRegistry", abi.encode(token, other, MIN_STAKE, delay, DISPUTE));
    }
}
