// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {INodeRegistry} from "../../../contracts/interfaces/INodeRegistry.sol";
import {Evidence, Proof} from "../../../contracts/types/Cases.sol";
import {Messages, Offer} from "../../../contracts/types/Messages.sol";
import {CourtFixture} from "../support/CourtFixture.sol";

contract ProveOverchargeTest is CourtFixture {
    /// @dev Of the fixture's job under its offer.
    uint128 private constant _PRICE = 10e6 + 1000 + 1500;

    function testFuzz_OverchargeSlashesAndAwardsByTheRule(uint128 most, uint128 extra, uint128 out) public {
        most = uint128(bound(most, 0, 1e15));
        extra = uint128(bound(extra, 1, FUNDS - MIN_STAKE));
        out = uint128(bound(out, 1, MIN_STAKE + extra));
        vm.startPrank(provider);
        registry.stake(extra);
        registry.requestUnstake(out);
        vm.stopPrank();
        uint256 all = MIN_STAKE + extra;
        uint256 slashed = _min(MIN_STAKE + 10 * uint256(most), all);
        uint256 award = _min(2 * uint256(most), slashed / 2);

        Job memory job = _job(1, _PRICE + 1);
        job.order.maxAmount = most;
        _relink(job);
        Evidence memory evidence = _evidence(job);
        vm.expectEmit(address(court));
        emit ICourt.FaultProven(_orderHash(job), provider, buyer.addr, uint128(slashed), uint128(award));
        court.proveOvercharge(evidence, _offer());

        uint256 left = registry.provider(provider).staked + registry.provider(provider).unstaking;
        assertEq(left, all - slashed);
        assertEq(_stakeOf(provider), slashed > all - out ? 0 : all - out - slashed);
        assertEq(registry.slashed(), slashed);
        Proof memory proof = court.proofOf(_orderHash(job));
        assertEq(proof.buyer, buyer.addr);
        assertEq(proof.award, award);
        assertTrue(proof.isProven);
        _assertSolvent(0);
    }

    function test_OverchargeBeginsAnAtomAboveThePrice() public {
        _refuse(_job(1, _PRICE), _error(ICourt.Court_NotAbovePrice.selector, _PRICE, _PRICE));
        _prove(_job(1, _PRICE + 1));
    }

    function test_OverchargeBeginsAnAtomAboveTheOrdersMaximum() public {
        Job memory job = _job(1, 9e6);
        job.order.maxAmount = 9e6;
        _relink(job);
        _refuse(job, _error(ICourt.Court_NotAbovePrice.selector, 9e6, 9e6));
        job.receipt.amount = 9e6 + 1;
        _prove(job);
    }

    function test_OverchargeIsAnythingAMillisecondPastTheDeadline() public {
        Job memory job = _job(1, 1);
        job.receipt.finishedAtMs = job.order.deadlineMs;
        _refuse(job, _error(ICourt.Court_NotAbovePrice.selector, 1, _PRICE));
        job.receipt.finishedAtMs = job.order.deadlineMs + 1;
        _prove(job);
    }

    function test_OverchargeIsAnythingForAFailedJob() public {
        Job memory job = _job(1, 1);
        job.receipt.status = 0;
        _prove(job);
    }

    function test_OverchargeCountsTheDiscountOfALateJob() public {
        Job memory job = _job(1, _PRICE);
        Offer memory offer = _offer();
        (offer.maxLatencyMs, offer.lateDiscountBps) = (4999, 100);
        job.order.offerHash = _digest(Messages.hash(offer));
        _relink(job);
        Evidence memory evidence = _evidence(job);
        vm.expectEmit(true, true, true, false, address(court));
        emit ICourt.FaultProven(_orderHash(job), provider, buyer.addr, 0, 0);
        court.proveOvercharge(evidence, offer);
    }

    function test_OverchargeNeedsTheOffersHashInTheOrder() public {
        Evidence memory evidence = _evidence(_job(1, 50e6));
        Offer memory offer = _offer();
        offer.pricePerJob = 1;
        bytes32 got = _digest(Messages.hash(offer));
        vm.expectRevert(
            abi.encodeWithSelector(ICourt.Court_WrongReference.selector, got, evidence.order.offerHash)
        );
        court.proveOvercharge(evidence, offer);
    }

    function test_OverchargeIsOfTheOrderThatTheReceiptNames() public {
        Job memory job = _job(1, 50e6);
        job.order.seq = 2;
        bytes32 got = job.receipt.orderHash;
        _refuse(job, abi.encodeWithSelector(ICourt.Court_WrongReference.selector, got, _orderHash(job)));
    }

    function test_OverchargeIsDisputedUntilTheLastSecond() public {
        Evidence memory evidence = _evidence(_job(1, 50e6));
        vm.warp(_end());
        vm.expectRevert(_error(ICourt.Court_TooLate.selector, _end(), _end()));
        court.proveOvercharge(evidence, _offer());
        vm.warp(_end() - 1);
        court.proveOvercharge(evidence, _offer());
    }

    function test_OverchargeIsProvenOnceForAnOrder() public {
        Job memory job = _job(1, 50e6);
        _prove(job);
        bytes memory reason = abi.encodeWithSelector(ICourt.Court_AlreadyProven.selector, _orderHash(job));
        _refuse(job, reason);
        job.receipt.amount = 60e6;
        _refuse(job, reason);
        assertEq(registry.slashed(), MIN_STAKE);
    }

    function test_OverchargeByAProviderWithoutStakeIsProvenForNothing() public {
        _prove(_job(1, 50e6));
        Job memory job = _job(2, 50e6);
        _prove(job);
        assertEq(court.proofOf(_orderHash(job)).award, 0);
        assertEq(registry.slashed(), MIN_STAKE);
    }

    function test_OverchargeTakesStakeOnItsWayOut() public {
        vm.prank(provider);
        registry.requestUnstake(MIN_STAKE);
        vm.warp(START + 1 days + GRACE);
        _prove(_job(1, 50e6));
        assertEq(registry.slashed(), MIN_STAKE);
        vm.warp(START + UNSTAKE_DELAY);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistry_NothingUnstaking.selector, provider));
        vm.prank(provider);
        registry.withdrawStake();
    }

    /// @dev A node may sign whatever it likes; a word that does not fit its field is refused all the same.
    function test_OverchargeRefusesWordsThatDoNotFitTheirFields() public {
        Job memory job = _job(1, 50e6);
        bytes memory fields = abi.encode(job.receipt);
        uint256 amount = 2 ** 128 + 50e6;
        assembly ("memory-safe") {
            mstore(add(fields, 0xc0), amount)
        }
        Evidence memory evidence = _evidence(job);
        evidence.signature = _sign(nodeKey, keccak256(bytes.concat(Messages.RECEIPT_TYPEHASH, fields)));
        bytes memory data = abi.encodeCall(ICourt.proveOvercharge, (evidence, _offer()));
        // Behind the selector, the evidence's offset and the offer: terms, order, and five fields of the receipt.
        uint256 at = 4 + 32 * (1 + 10) + 32 * (7 + 8 + 5);
        assembly ("memory-safe") {
            mstore(add(add(data, 0x20), at), amount)
        }
        (bool ok, bytes memory answer) = address(court).call(data);
        assertFalse(ok);
        assertEq(answer.length, 0);
        assertEq(registry.slashed(), 0);
    }

    function _prove(Job memory job) private {
        Evidence memory evidence = _evidence(job);
        court.proveOvercharge(evidence, _offer());
        assertTrue(court.proofOf(_orderHash(job)).isProven);
    }

    function _refuse(Job memory job, bytes memory reason) private {
        Evidence memory evidence = _evidence(job);
        vm.expectRevert(reason);
        court.proveOvercharge(evidence, _offer());
    }

    function _min(uint256 a, uint256 b) private pure returns (uint256) {
        return a < b ? a : b;
    }
}
