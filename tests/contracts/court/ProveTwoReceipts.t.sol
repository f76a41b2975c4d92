// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {Evidence, Proof} from "../../../contracts/types/Cases.sol";
import {Messages, Receipt as JobReceipt} from "../../../contracts/types/Messages.sol";
import {CourtFixture} from "../support/CourtFixture.sol";

contract ProveTwoReceiptsTest is CourtFixture {
    /// @dev Or a node would show two free ones first, and be done for the minimum stake.
    function testFuzz_TwoReceiptsCostTenTimesTheOrderWhateverTheyCharge(uint128 first, uint128 second, uint128 most)
        public
    {
        most = uint128(bound(most, 0, 1e9));
        vm.prank(provider);
        registry.stake(100_000e6);
        Job memory job = _job(1, first);
        job.order.maxAmount = most;
        _relink(job);
        (JobReceipt memory other, bytes memory signature) = _second(job, second);
        Evidence memory evidence = _evidence(job);
        vm.expectEmit(address(court));
        emit ICourt.FaultProven(_orderHash(job), provider, buyer.addr, MIN_STAKE + 10 * most, 2 * most);
        court.proveTwoReceipts(evidence, other, signature);
        assertEq(_stakeOf(provider), 100_000e6 - 10 * most);
        assertEq(court.proofOf(_orderHash(job)).award, 2 * most);
        _assertSolvent(0);
    }

    function test_TwoReceiptsAreProvenOnceForAnOrder() public {
        (Evidence memory evidence, JobReceipt memory other, bytes memory signature) = _fault(1);
        court.proveTwoReceipts(evidence, other, signature);
        bytes32 orderHash = evidence.receipt.orderHash;
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_AlreadyProven.selector, orderHash));
        court.proveTwoReceipts(evidence, other, signature);

        other.energyMillijoules = 1;
        signature = _sign(nodeKey, Messages.hash(other));
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_AlreadyProven.selector, orderHash));
        court.proveTwoReceipts(evidence, other, signature);
        assertEq(registry.slashed(), MIN_STAKE);
    }

    function test_TwoReceiptsAreDisputedUntilTheLastSecond() public {
        (Evidence memory evidence, JobReceipt memory other, bytes memory signature) = _fault(1);
        vm.warp(_end());
        vm.expectRevert(_error(ICourt.Court_TooLate.selector, _end(), _end()));
        court.proveTwoReceipts(evidence, other, signature);
        vm.warp(_end() - 1);
        court.proveTwoReceipts(evidence, other, signature);
    }

    function test_TwoReceiptsDifferInMoreThanTheirSignatures() public {
        Job memory job = _job(1, 5e6);
        Evidence memory evidence = _evidence(job);
        bytes memory signature = _signShort(nodeKey, Messages.hash(job.receipt));
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_SameReceipt.selector, _receiptHash(job)));
        court.proveTwoReceipts(evidence, job.receipt, signature);
    }

    function test_TwoReceiptsAreForOneOrder() public {
        (Evidence memory evidence,,) = _fault(1);
        Job memory other = _job(2, 5e6);
        bytes memory signature = _sign(nodeKey, Messages.hash(other.receipt));
        vm.expectRevert(_reference(other.receipt.orderHash, evidence.receipt.orderHash));
        court.proveTwoReceipts(evidence, other.receipt, signature);
    }

    function test_TwoReceiptsAreBothTheNodes() public {
        (Evidence memory evidence, JobReceipt memory other, bytes memory signature) = _fault(1);
        bytes32 otherHash = Messages.hash(other);
        bytes memory wrong = _sign(key, otherHash);
        vm.expectRevert(_signer(key.addr));
        court.proveTwoReceipts(evidence, other, wrong);
        wrong = _signHigh(nodeKey, otherHash);
        vm.expectRevert(_signer(address(0)));
        court.proveTwoReceipts(evidence, other, wrong);

        evidence.signature = _sign(key, Messages.hash(evidence.receipt));
        vm.expectRevert(_signer(key.addr));
        court.proveTwoReceipts(evidence, other, signature);
        evidence.signature = "";
        vm.expectRevert(_signer(address(0)));
        court.proveTwoReceipts(evidence, other, signature);
    }

    function test_EvidenceIsOfASessionThatExists() public {
        (Evidence memory evidence, JobReceipt memory other, bytes memory signature) = _fault(1);
        evidence.terms.salt = 0;
        bytes32 unknown = escrow.sessionIdOf(evidence.terms);
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_UnknownSession.selector, unknown));
        court.proveTwoReceipts(evidence, other, signature);
    }

    function test_EvidenceIsOfOneSessionAndOrder() public {
        (Evidence memory evidence, JobReceipt memory other, bytes memory signature) = _fault(1);
        evidence.order.sessionId = "another";
        vm.expectRevert(_reference("another", sessionId));
        court.proveTwoReceipts(evidence, other, signature);

        evidence.order.sessionId = sessionId;
        evidence.order.seq = 2;
        bytes32 orderHash = _digest(Messages.hash(evidence.order));
        vm.expectRevert(_reference(evidence.receipt.orderHash, orderHash));
        court.proveTwoReceipts(evidence, other, signature);
    }

    /// @dev Key rotation neither frees a node of what it signed nor frames it for what another key signs.
    function test_EvidenceCountsUnderTheKeyOfTheSessionsEpoch() public {
        vm.prank(provider);
        registry.stake(10 * MIN_STAKE);
        (Evidence memory evidence, JobReceipt memory other, bytes memory signature) = _fault(1);
        Actor memory newKey = _actor("new node key");
        vm.prank(provider);
        registry.rotateNodeKey(nodeId, newKey.addr, 0);
        bytes memory wrong = _sign(newKey, Messages.hash(other));
        vm.expectRevert(_signer(newKey.addr));
        court.proveTwoReceipts(evidence, other, wrong);
        court.proveTwoReceipts(evidence, other, signature);

        (terms, sessionId) = _session(1e6);
        (evidence, other, signature) = _fault(1);
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_WrongSigner.selector, nodeKey.addr, newKey.addr));
        court.proveTwoReceipts(evidence, other, signature);
        nodeKey = newKey;
        (evidence, other, signature) = _fault(1);
        court.proveTwoReceipts(evidence, other, signature);
    }

    function test_EvidenceIsReadForTheChainAtHand() public {
        vm.chainId(999);
        (terms, sessionId) = _session(1e6);
        (Evidence memory evidence, JobReceipt memory other, bytes memory signature) = _fault(1);
        court.proveTwoReceipts(evidence, other, signature);
        assertTrue(court.proofOf(evidence.receipt.orderHash).isProven);
    }

    function test_EvidenceOfAClosedSessionCounts() public {
        (Evidence memory evidence, JobReceipt memory other, bytes memory signature) = _fault(1);
        escrow.close(terms, 0, _signClose(nodeKey, sessionId, 0));
        court.proveTwoReceipts(evidence, other, signature);
        _assertSolvent(0);
    }

    function test_AwardIsPaidToTheBuyerOnceWhoeverCalls() public {
        (Evidence memory evidence, JobReceipt memory other, bytes memory signature) = _fault(1);
        court.proveTwoReceipts(evidence, other, signature);
        bytes32 orderHash = evidence.receipt.orderHash;
        uint256 before = token.balanceOf(buyer.addr);
        vm.expectEmit(address(court));
        emit ICourt.AwardPaid(orderHash, buyer.addr, 200e6);
        vm.prank(stranger);
        court.payAward(orderHash);
        assertEq(token.balanceOf(buyer.addr), before + 200e6);
        assertEq(registry.slashed(), MIN_STAKE - 200e6);

        court.payAward(orderHash);
        assertEq(token.balanceOf(buyer.addr), before + 200e6);
        Proof memory proof = court.proofOf(orderHash);
        assertEq(proof.award, 0);
        assertTrue(proof.isProven);
        _assertSolvent(0);
    }

    function test_AwardOfNoProofIsNothing() public {
        court.payAward("no order");
        assertFalse(court.proofOf("no order").isProven);
        assertEq(token.balanceOf(address(registry)), MIN_STAKE);
    }

    function _fault(uint32 seq) private view returns (Evidence memory, JobReceipt memory, bytes memory) {
        Job memory job = _job(seq, 4e6);
        (JobReceipt memory other, bytes memory signature) = _second(job, 5e6);
        return (_evidence(job), other, signature);
    }

    function _signer(address got) private view returns (bytes memory) {
        return abi.encodeWithSelector(ICourt.Court_WrongSigner.selector, got, nodeKey.addr);
    }

    function _reference(bytes32 got, bytes32 limit) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ICourt.Court_WrongReference.selector, got, limit);
    }
}
